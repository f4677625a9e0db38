"""The second-stage tables of a VM (EPT, NPT, stage 2, G-stage, gmap), as far as their leaves go.

Addresses are guest frame numbers (gfn, in base pages). What holds on every architecture but riscv64: an invalidation
drops every leaf that it touches, whole (tdp_mmu_zap_leafs of arch/x86/kvm/mmu/tdp_mmu.c, stage2_unmap_walker of
arch/arm64/kvm/hyp/pgtable.c).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from pfnmap import Geometry, Level

__all__ = ["LEVELS", "Leaf", "Stage2"]

LEVELS: tuple[Level, ...] = ("pud", "pmd", "pte")


class Leaf(NamedTuple):
    """A leaf: its `level`, the first `gfn` that it maps, the `pfn` that this one maps to, and whether the guest may
    write and execute.

    `mmu_writable`: KVM may let the guest write without a look at the process, because it took that away itself (x86's
    SPTE bit of that name; loongarch's _PAGE_WRITE without the dirty bit). `untraced`: it did so, which no tracepoint of
    changed entries shows (x86's fast_page_fault).
    """

    level: Level
    gfn: int
    pfn: int
    writable: bool
    executable: bool = True
    mmu_writable: bool = False
    untraced: bool = False


class Stage2:
    """The leaves of one VM, as runs: the first leaf, and how many there are that each continue the one before, in gfns
    and pfns. `mmio`: the gfns that x86 remembers to be in no slot (MMIO SPTEs), each with the generation of the
    memslots of which that was true."""

    def __init__(self, geometry: Geometry) -> None:
        self.pages = {level: geometry.size(level) >> geometry.PAGE_SHIFT for level in LEVELS}
        """How many base pages a leaf of a level maps."""
        self.mmio: dict[int, int] = {}
        self._starts: list[int] = []
        self._runs: list[tuple[Leaf, int]] = []

    def leaf(self, gfn: int) -> Leaf | None:
        """Return the leaf that maps a gfn, or None."""
        at = bisect_right(self._starts, gfn) - 1
        if at < 0:
            return None
        first, count = self._runs[at]
        n = (gfn - first.gfn) // self.pages[first.level]
        return self._nth(first, n) if n < count else None

    def end(self, leaf: Leaf) -> int:
        """Return the first gfn past the run that a leaf is in."""
        first, count = self._runs[bisect_right(self._starts, leaf.gfn) - 1]
        return first.gfn + count * self.pages[first.level]

    def install(self, leaf: Leaf, count: int = 1) -> None:
        """Put a leaf in, or a run of `count`, instead of what is there."""
        pages = self.pages[leaf.level]
        end = leaf.gfn + count * pages
        if self.mmio:
            self.mmio = {gfn: since for gfn, since in self.mmio.items() if not leaf.gfn <= gfn < end}
        self._replace(self._touched(leaf.gfn, end), [(leaf, count)])

    def zap(self, start: int, end: int) -> None:
        """Drop every leaf that maps a gfn of [start, end)."""
        self._replace(self._touched(start, end), [])

    def split(self, leaf: Leaf, *, executable: bool = False) -> None:
        """Replace a leaf by those of the next smaller level that map the same; pages become `executable` if asked."""
        level = LEVELS[LEVELS.index(leaf.level) + 1]
        small = leaf._replace(level=level, executable=leaf.executable or (executable and level == "pte"))
        pages = self.pages[leaf.level]
        self._replace(self._touched(leaf.gfn, leaf.gfn + pages), [(small, pages // self.pages[level])])

    def write_protect(self, start: int, end: int) -> None:
        """Take the guest's right to write from every leaf that maps a gfn of [start, end)."""
        touched = self._touched(start, end)
        runs = [
            (leaf._replace(writable=False, untraced=False) if leaf.writable else leaf, count)
            for leaf, count in self._runs[touched]
        ]
        self._replace(touched, runs)

    def runs(self, start: int, end: int) -> list[tuple[Leaf, int]]:
        """Return the runs of the leaves that map a gfn of [start, end), ascending."""
        found = []
        low = max(bisect_right(self._starts, start) - 1, 0)
        for first, count in self._runs[low : bisect_left(self._starts, end)]:
            pages = self.pages[first.level]
            begin, stop = max((start - first.gfn) // pages, 0), min(-((first.gfn - end) // pages), count)
            if begin < stop:
                found.append((self._nth(first, begin), stop - begin))
        return found

    def within(self, start: int, end: int) -> list[Leaf]:
        """Return the leaves that map a gfn of [start, end), ascending."""
        return [self._nth(first, n) for first, count in self.runs(start, end) for n in range(count)]

    def _nth(self, first: Leaf, n: int) -> Leaf:
        on = n * self.pages[first.level]
        return first._replace(gfn=first.gfn + on, pfn=first.pfn + on) if n else first

    def _touched(self, start: int, end: int) -> slice:
        """Return which runs hold the leaves that map a gfn of [start, end), and no others: runs are cut for that."""
        low = self._cut(start, up=False)
        return slice(low, max(self._cut(end, up=True), low) if start < end else low)

    def _cut(self, gfn: int, *, up: bool) -> int:
        """Have a run begin at a gfn, or at the start of the leaf there, `up`: its end; return which run that is."""
        at = bisect_right(self._starts, gfn) - 1
        if at < 0:
            return 0
        first, count = self._runs[at]
        pages = self.pages[first.level]
        n = -((first.gfn - gfn) // pages) if up else (gfn - first.gfn) // pages
        if n >= count:
            return at + 1
        if n:
            rest = self._nth(first, n), count - n
            self._runs[at : at + 1] = [(first, n), rest]
            self._starts.insert(at + 1, rest[0].gfn)
        return at + bool(n)

    def _replace(self, which: slice, runs: list[tuple[Leaf, int]]) -> None:
        """Have these runs in the place of some; those that continue each other become one."""
        low, high = max(which.start - 1, 0), which.stop + 1
        folded: list[tuple[Leaf, int]] = []
        for leaf, count in [*self._runs[low : which.start], *runs, *self._runs[which.stop : high]]:
            if folded and leaf == self._nth(*folded[-1]):
                leaf, count = folded[-1][0], folded.pop()[1] + count
            folded.append((leaf, count))
        self._runs[low:high] = folded
        self._starts[low:high] = [leaf.gfn for leaf, _ in folded]

    def __iter__(self) -> Iterator[Leaf]:
        """Iterate over all leaves."""
        return (self._nth(first, n) for first, count in self._runs for n in range(count))
