"""Page-table geometry, and how the CPU reads a table's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TypeAlias

from pfnmap.contract.entry import Entry, Level
from pfnmap.records import dataclass

__all__ = ["Bits", "Fields", "Geometry", "MmuCpu", "WalkLevel", "WordFormat"]


@dataclass(frozen=True, slots=True)
class WalkLevel:
    """One level that the hardware walks: its name in output, its shift (bits) and its table's entries."""

    name: Level
    shift: int
    ptrs: int


Bits: TypeAlias = "tuple[int, int]"
"""(mask, value): holds for a word w where ``w & mask == value``."""

Fields: TypeAlias = "tuple[tuple[int, int], ...]"
"""(mask, shift) pairs: the bits of a word that hold an address (bytes), each moved left by its shift (right by a
negative one): ``address = OR of (w & mask) << shift``."""


@dataclass(frozen=True, slots=True)
class WordFormat:
    """How the CPU's table walker reads a word of one level's tables, as the CPU's manual says, not the kernel.

    `valid`: the word takes part in a walk at all. `table`: a valid word points to the next table; None where it always
    maps memory (the last level). `address`: where a word that maps memory holds the physical address of what it maps;
    `next_table`: where one that points to a table holds that table's (None: as `address`). `load`, `execute`: what a
    word that maps memory holds where user space may read and execute it; None where that is not said, ``(0, 0)`` where
    every such word may be. `shared`: the word of an empty slot that points to a table which all empty slots share, in
    which nothing is mapped (LoongArch's invalid_pte_table). `store`: as `load`, for writing. `uncached`: what a word
    that maps memory holds where that is device memory, as pgprot_noncached makes it, and `combining` where the CPU may
    combine stores to it, as pgprot_writecombine does (None: it makes no such, and is pgprot_noncached). `software`: the
    bits of a word that maps memory which the walker leaves to software; `marks`: those by which it notes, or is told,
    that memory was accessed and written; no marks, 0. `size`: what a word that maps memory holds for how much that is,
    where the word itself says so (SPARC's page size). `reserved`: the bits of a word that maps memory which must be 0,
    or the walk ends in an exception; who says these says of each bit above the address what it is.
    """

    valid: Bits
    table: Bits | None
    address: Fields
    next_table: Fields | None = None
    load: Bits | None = None
    execute: Bits | None = None
    shared: int | None = None
    store: Bits | None = None
    uncached: Bits | None = None
    combining: Bits | None = None
    software: int | None = None
    marks: int = 0
    size: Bits | None = None
    reserved: int | None = None


@dataclass(frozen=True, slots=True)
class MmuCpu:
    """The emulated CPU whose MMU the kit takes as a judge.

    `path`: where its class is, a `pfnmap.testing.unicorn_cpu.UnicornCpu`, as ``package.module:Class``; it is imported
    only where an emulator is installed. `state`: what that CPU has and has not, as `cpu` keys with their values; only
    boots with these are judged.
    """

    path: str
    state: Mapping[str, object]


@dataclass(frozen=True)
class Geometry:
    """Page-table geometry of one boot. Two things that are not derived from each other (DESIGN rule 5):

    the constants (what ``PGDIR_SHIFT``, ``PTRS_PER_P4D``, ``pgd_index`` say in that boot, compared with the vectors)
    and `walk`, the levels that are really walked, top first, each with the shift and the entries of its table.
    Shifts are in bits, `task_size` in bytes: the first address past user space.

    On s390 a process begins with the lowest `new_process_levels` of `walk`, and gets others on top once it maps
    something that those do not reach (`levels`). Elsewhere (0) every process walks all.
    """

    PAGE_SHIFT: int
    PMD_SHIFT: int
    PUD_SHIFT: int
    P4D_SHIFT: int
    PGDIR_SHIFT: int
    PTRS_PER_PTE: int
    PTRS_PER_PMD: int
    PTRS_PER_PUD: int
    PTRS_PER_P4D: int
    PTRS_PER_PGD: int
    walk: tuple[WalkLevel, ...]
    task_size: int
    new_process_levels: int = 0

    @cached_property
    def PAGE_SIZE(self) -> int:
        """Bytes in a base page."""
        return 1 << self.PAGE_SHIFT

    @cached_property
    def PMD_ORDER(self) -> int:
        """Order (log2 of base pages) of a PMD leaf."""
        return self.PMD_SHIFT - self.PAGE_SHIFT

    @cached_property
    def PUD_ORDER(self) -> int:
        """Order (log2 of base pages) of a PUD leaf."""
        return self.PUD_SHIFT - self.PAGE_SHIFT

    @property
    def stack_top(self) -> int:
        """The end (bytes) of what a new process's tables reach: its stack and what mmap chooses lie below."""
        top = self.lowest(self.new_process_levels)[0]
        return min(self.task_size, top.ptrs << top.shift)

    def lowest(self, count: int) -> tuple[WalkLevel, ...]:
        """Return the lowest `count` walked levels (0: all), the first of them named ``pgd``, as what is on top is."""
        top, *below = self.walk[-count:]
        return (replace(top, name="pgd"), *below)

    def levels(self, end: int) -> tuple[WalkLevel, ...]:
        """Return the levels that are walked in a process whose mappings end at `end` (bytes)."""
        count = self.new_process_levels or len(self.walk)
        while count < len(self.walk) and end > self.walk[-count].ptrs << self.walk[-count].shift:
            count += 1
        return self.lowest(count)

    def shift(self, level: Level) -> int:
        """Return the kernel's shift of a level in bits (PAGE_SHIFT for ``pte``, PGDIR_SHIFT for ``pgd``)."""
        return self._shifts[level]

    @cached_property
    def _shifts(self) -> dict[Level, int]:
        return {
            "pte": self.PAGE_SHIFT,
            "pmd": self.PMD_SHIFT,
            "pud": self.PUD_SHIFT,
            "p4d": self.P4D_SHIFT,
            "pgd": self.PGDIR_SHIFT,
        }

    def size(self, level: Level) -> int:
        """Return the bytes that one entry of a level maps."""
        return 1 << self.shift(level)

    def ptrs(self, level: Level) -> int:
        """Return PTRS_PER_x of a level."""
        return {
            "pte": self.PTRS_PER_PTE,
            "pmd": self.PTRS_PER_PMD,
            "pud": self.PTRS_PER_PUD,
            "p4d": self.PTRS_PER_P4D,
            "pgd": self.PTRS_PER_PGD,
        }[level]

    def index(self, level: Level, address: Entry) -> Entry:
        """Return X_index(address): the kernel's macro, which is not always the slot that is walked."""
        return (address >> self.shift(level)) & (self.ptrs(level) - 1)

    def folded(self, level: Level) -> bool:
        """Tell whether a level is folded into the one above it in this boot, i.e. not walked."""
        return all(w.name != level for w in self.walk)

    def constants(self) -> dict[str, int]:
        """Return the geometry constants by their kernel names (compared with a vector file's `constants`)."""
        names = [f"PTRS_PER_{x}" for x in ("PTE", "PMD", "PUD", "P4D", "PGD")]
        names += [
            "PAGE_SHIFT",
            "PMD_SHIFT",
            "PUD_SHIFT",
            "P4D_SHIFT",
            "PGDIR_SHIFT",
            "PMD_ORDER",
            "PUD_ORDER",
        ]
        return {name: getattr(self, name) for name in names}
