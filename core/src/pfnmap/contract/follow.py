"""follow_pfnmap_args: what a look-up of a pfnmap's address is asked and answers (include/linux/mm.h)."""

from __future__ import annotations

import sys

from pfnmap.contract.entry import Level
from pfnmap.contract.vma import VmArea
from pfnmap.errors import Misuse, Refused

__all__ = ["FollowPfnmapArgs", "caller"]

_WORD = (1 << 64) - 1


class FollowPfnmapArgs:
    """follow_pfnmap_args. Inputs: `vma` and `address` (bytes). The outputs are there between a successful
    `follow_pfnmap_start` and `follow_pfnmap_end`, under the page-table lock; reading one at another time raises Misuse,
    which names who did it. They are made of `found`, the level, the entry and the address that were looked up, when
    they are read (pfnmap_args_setup)."""

    __slots__ = ("address", "found", "vma")

    def __init__(self, vma: VmArea, address: int) -> None:
        self.vma = vma
        self.address = address
        self.found: tuple[Level, int, int] | None = None

    @property
    def pfn(self) -> int:
        """The page frame number of the page at `address`."""
        level, entry, address = self._found("pfn")
        geometry = self.vma.vm_mm.kernel.geometry
        within = (address & (geometry.size(level) - 1)) >> geometry.PAGE_SHIFT
        return self._of(level, "pfn", entry) + within

    @property
    def pgprot(self) -> int:
        """The protection bits of the entry."""
        level, entry, _ = self._found("pgprot")
        return self._of(level, "pgprot", entry)

    @property
    def writable(self) -> bool:
        """Whether the entry is writable."""
        level, entry, _ = self._found("writable")
        return bool(self._of(level, "write", entry))

    @property
    def special(self) -> bool:
        """Whether the entry is special."""
        level, entry, _ = self._found("special")
        return bool(self._of(level, "special", entry))

    @property
    def addr_mask(self) -> int:
        """PAGE_MASK, PMD_MASK or PUD_MASK, after what the entry maps. Refused without `follow-addr-mask`."""
        kernel = self.vma.vm_mm.kernel
        if not kernel.has("follow-addr-mask"):
            raise Refused("addr_mask", "follow_pfnmap_args has no such field in this release (follow-addr-mask)")
        level, _, _ = self._found("addr_mask")
        return -kernel.geometry.size(level) & _WORD

    def _of(self, level: Level, what: str, entry: int) -> int:
        return int(getattr(self.vma.vm_mm.kernel.ops, f"{level}_{what}")(entry))

    def _found(self, name: str) -> tuple[Level, int, int]:
        if self.found is None:
            raise Misuse(caller(3), f"{name} is valid between follow_pfnmap_start() and follow_pfnmap_end() only")
        return self.found


def caller(depth: int) -> str:
    """Return the function `depth` frames up, by module and qualified name."""
    frame = sys._getframe(depth)
    return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}"
