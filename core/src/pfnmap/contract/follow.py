"""follow_pfnmap_args: what a look-up of a pfnmap's address is asked and answers (include/linux/mm.h)."""

from __future__ import annotations

import sys
from typing import NamedTuple

from pfnmap.contract.vma import VmArea
from pfnmap.errors import Misuse, Refused

__all__ = ["FollowOutputs", "FollowPfnmapArgs", "caller"]


class FollowOutputs(NamedTuple):
    """What a look-up found, as `FollowPfnmapArgs` tells it."""

    pfn: int
    pgprot: int
    writable: bool
    special: bool
    addr_mask: int


class FollowPfnmapArgs:
    """follow_pfnmap_args. Inputs: `vma` and `address` (bytes). The outputs are there between a successful
    `follow_pfnmap_start` and `follow_pfnmap_end`, under the page-table lock; reading one at another time raises Misuse,
    which names who did it."""

    __slots__ = ("address", "outputs", "vma")

    def __init__(self, vma: VmArea, address: int) -> None:
        self.vma = vma
        self.address = address
        self.outputs: FollowOutputs | None = None

    @property
    def pfn(self) -> int:
        """The page frame number of the page at `address`."""
        return self._output("pfn").pfn

    @property
    def pgprot(self) -> int:
        """The protection bits of the entry."""
        return self._output("pgprot").pgprot

    @property
    def writable(self) -> bool:
        """Whether the entry is writable."""
        return self._output("writable").writable

    @property
    def special(self) -> bool:
        """Whether the entry is special."""
        return self._output("special").special

    @property
    def addr_mask(self) -> int:
        """PAGE_MASK, PMD_MASK or PUD_MASK, after what the entry maps. Refused without `follow-addr-mask`."""
        if not self.vma.vm_mm.kernel.has("follow-addr-mask"):
            raise Refused("addr_mask", "follow_pfnmap_args has no such field in this release (follow-addr-mask)")
        return self._output("addr_mask").addr_mask

    def _output(self, name: str) -> FollowOutputs:
        if self.outputs is None:
            raise Misuse(caller(3), f"{name} is valid between follow_pfnmap_start() and follow_pfnmap_end() only")
        return self.outputs


def caller(depth: int) -> str:
    """Return the function `depth` frames up, by module and qualified name."""
    frame = sys._getframe(depth)
    return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}"
