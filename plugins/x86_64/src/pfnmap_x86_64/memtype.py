"""Memory types of physical ranges: who reserved which (arch/x86/mm/pat/memtype.c, memtype_interval.c of 6.12.117 and
6.1.192; read, but for the message of `free`, which is recorded).

Ranges may overlap if they are of one type. Addresses are in bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from errno import EBUSY, EINVAL
from typing import Final

from pfnmap.records import dataclass

from .bits import ALL, CACHE_MASK, PAT, PCD, PWT, clear

__all__ = ["CacheMode", "Memtype", "Memtypes", "is_new_memtype_allowed", "with_cachemode"]

_ISA_START: Final = 0xA0000
_ISA_END: Final = 0x100000
_ABOVE_4G: Final = 1 << 32
_NOT_CACHE: Final = clear(ALL, CACHE_MASK)


class CacheMode(Enum):
    """enum page_cache_mode, by the names that the kernel prints (cattr_name), in its order."""

    WB = "write-back"
    WC = "write-combining"
    UC_MINUS = "uncached-minus"
    UC = "uncached"
    WT = "write-through"
    WP = "write-protected"

    @property
    def protval(self) -> int:
        """cachemode2protval, for the PAT that the kernel programs."""
        return _PROTVAL[self._name_]

    @property
    def number(self) -> int:
        """Its number in the enum of the kernel."""
        return list(CacheMode).index(self)

    @classmethod
    def of(cls, prot: int) -> CacheMode:
        """pgprot2cachemode, of a protection in the form for 4K entries."""
        return _SLOTS[bool(prot & PAT) << 2 | bool(prot & PCD) << 1 | bool(prot & PWT)]


_SLOTS: Final = (
    *(CacheMode.WB, CacheMode.WC, CacheMode.UC_MINUS, CacheMode.UC),
    *(CacheMode.WB, CacheMode.WP, CacheMode.UC_MINUS, CacheMode.WT),
)
"""The PAT (pat_bp_init): what each value of the bits PAT, PCD and PWT means."""

_PROTVAL: Final = {"WB": 0, "WC": PWT, "UC_MINUS": PCD, "UC": PCD | PWT, "WP": PAT | PWT, "WT": PAT | PCD | PWT}
"""By name: an enum's member is slow to hash."""

_NOT_INSTEAD_OF: Final = {
    CacheMode.UC_MINUS: {CacheMode.WB},
    CacheMode.WC: {CacheMode.WB},
    CacheMode.WT: {CacheMode.WB, CacheMode.WC},
}


def with_cachemode(prot: int, mode: CacheMode) -> int:
    """Return a protection with another cache mode."""
    return prot & _NOT_CACHE | mode.protval


@dataclass(frozen=True)
class Memtype:
    """A reservation of [start, end)."""

    start: int
    end: int
    mode: CacheMode

    def __str__(self) -> str:
        """Return it as /sys/kernel/debug/x86/pat_memtype_list has it."""
        return f"PAT: [mem 0x{self.start:016x}-0x{self.end:016x}] {self.mode.value}"


class Memtypes:
    """The reservations of one boot.

    `is_ram(start, end)` tells whether a range has RAM in it, which the kernel tracks by page and the model takes to be
    write-back; none is reserved here. `log` writes a line to the kernel's log, `tell` says which finding happens.
    `mtrr_write_back`: the MTRRs say write-back of what lies above 4 GiB and is no RAM, which is the firmware's doing;
    below 4 GiB they never do (inference).
    """

    def __init__(
        self,
        is_ram: Callable[[int, int], bool],
        log: Callable[[str], None],
        *,
        tell: Callable[[str, str], None] = lambda finding, what: None,
        mtrr_write_back: bool = False,
    ) -> None:
        self._tell = tell
        self._mtrr_write_back = mtrr_write_back
        self._is_ram = is_ram
        self._log = log
        self.entries: list[Memtype] = []
        """By their starts, as the kernel's tree has them."""

    def reserve(self, start: int, end: int, wanted: CacheMode) -> tuple[int, CacheMode]:
        """memtype_reserve; return (0, the mode that was reserved) or (-errno, any).

        What is there decides over what is wanted; -EBUSY (and two lines in the log) where two modes are there. A wish
        for write-back becomes uncached-minus where the MTRRs do not say write-back (pat_x_mtrr_type); the log then says
        `req uncached-minus`, where by the source it is the wish itself (no record shows such a conflict).
        """
        if is_untracked_pat_range(start, end):
            return 0, CacheMode.WB
        if wanted is CacheMode.WB and not (self._mtrr_write_back and start >= _ABOVE_4G):
            wanted = CacheMode.UC_MINUS
        actual = wanted
        there = [entry.mode for entry in self._overlapping(start, end)]
        for other in there[1:]:
            if other is not there[0]:
                self._conflict(start, end, there[0], other)
                span = f"[mem {start:#010x}-{end - 1:#010x}]"
                self._log(f"x86/PAT: memtype_reserve failed {span}, track {actual.value}, req {wanted.value}")
                return -EBUSY, actual
        actual = there[0] if there else actual
        covered = any(entry.start <= start and end <= entry.end for entry in self._overlapping(start, end))
        if actual is not wanted and not covered:
            self._tell("F29", f"a part that is {actual.value} makes all of it so")
        self._insert(Memtype(start, end, actual))
        return 0, actual

    def _conflict(self, start: int, end: int, first: CacheMode, other: CacheMode) -> None:
        """memtype_check_conflict's line (pat.two_types_in_range)."""
        modes = f"{first.value}<->{other.value}"
        self._log(f"x86/PAT: init:1 conflicting memory types {start:x}-{end:x} {modes}")

    def free(self, start: int, end: int) -> int:
        """memtype_free; return 0, or -EINVAL (and say so in the log) for a range that nobody reserved.

        A reservation that ends there and starts before is made shorter (memtype_erase).
        """
        if is_untracked_pat_range(start, end) or self._is_ram(start, end):
            return 0
        found = self._overlapping(start, end)
        for entry in found:
            if (entry.start, entry.end) == (start, end):
                self.entries.remove(entry)
                return 0
        for entry in found:
            if entry.start < start and entry.end == end:
                self.entries.remove(entry)
                self._insert(replace(entry, end=start))
                return 0
        if found:
            self._tell("F28", "a part of what was reserved stays so for good")
        self._log(f"x86/PAT: init:1 freeing invalid memtype [mem {start:#010x}-{end - 1:#010x}]")
        return -EINVAL

    def lookup(self, address: int, page: int) -> CacheMode:
        """lookup_memtype of the page at an address: uncached-minus where nothing is reserved."""
        end = address + page
        if address >= _ISA_START and end <= _ISA_END:  # is_untracked_pat_range
            return CacheMode.WB
        for entry in self.entries:  # of no RAM
            if entry.start < end and address < entry.end:
                return entry.mode
        return CacheMode.WB if self._is_ram(address, end) else CacheMode.UC_MINUS

    def alike_until(self, start: int, end: int) -> int:
        """Return up to where in [start, end), which has no RAM in it, every page is of the type of the first."""
        edges = (edge for e in self.entries for edge in (e.start, e.end))
        return min((edge for edge in (*edges, _ISA_START, _ISA_END) if start < edge < end), default=end)

    def lookup_all(self, start: int, end: int, page: int) -> CacheMode | None:
        """The mode of every page of a range, or None where they differ."""
        cuts = sorted({start, *(edge for e in self.entries for edge in (e.start, e.end) if start < edge < end)})
        modes = {self.lookup(cut & -page, page) for cut in cuts}
        return modes.pop() if len(modes) == 1 else None

    def _overlapping(self, start: int, end: int) -> list[Memtype]:
        return [entry for entry in self.entries if entry.start < end and start < entry.end]

    def _insert(self, entry: Memtype) -> None:
        self.entries.append(entry)
        self.entries.sort(key=lambda memtype: memtype.start)


def is_untracked_pat_range(start: int, end: int) -> bool:
    """is_ISA_range: always write-back."""
    return start >= _ISA_START and end <= _ISA_END


def is_new_memtype_allowed(start: int, end: int, wanted: CacheMode, got: CacheMode) -> bool:
    """Tell whether another mode than the one wanted will do."""
    return is_untracked_pat_range(start, end) or got not in _NOT_INSTEAD_OF.get(wanted, ())
