"""The second-stage tables of a VM (EPT, NPT, stage 2, G-stage, gmap), as far as their leaves go.

Addresses are guest frame numbers (gfn, in base pages). What holds on every architecture but riscv64: an invalidation
drops every leaf that it touches, whole (tdp_mmu_zap_leafs of arch/x86/kvm/mmu/tdp_mmu.c, stage2_unmap_walker of
arch/arm64/kvm/hyp/pgtable.c).
"""

from __future__ import annotations

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
    """The leaves of one VM. `mmio`: the gfns that x86 remembers to be in no slot (MMIO SPTEs), each with the generation
    of the memslots of which that was true."""

    def __init__(self, geometry: Geometry) -> None:
        self.pages = {level: geometry.size(level) >> geometry.PAGE_SHIFT for level in LEVELS}
        """How many base pages a leaf of a level maps."""
        self.mmio: dict[int, int] = {}
        self._leaves: dict[Level, dict[int, Leaf]] = {level: {} for level in LEVELS}

    def leaf(self, gfn: int) -> Leaf | None:
        """Return the leaf that maps a gfn, or None."""
        for level in LEVELS:
            if found := self._leaves[level].get(gfn & -self.pages[level]):
                return found
        return None

    def install(self, leaf: Leaf) -> None:
        """Put a leaf in, instead of what is there."""
        self.zap(leaf.gfn, leaf.gfn + self.pages[leaf.level])
        self.mmio.pop(leaf.gfn, None)
        self._leaves[leaf.level][leaf.gfn] = leaf

    def zap(self, start: int, end: int) -> None:
        """Drop every leaf that maps a gfn of [start, end)."""
        for level, leaves in self._leaves.items():
            for gfn in self._touched(level, start, end):
                leaves.pop(gfn, None)

    def split(self, leaf: Leaf, *, executable: bool = False) -> None:
        """Replace a leaf by those of the next smaller level that map the same; pages become `executable` if asked."""
        level = LEVELS[LEVELS.index(leaf.level) + 1]
        small = leaf._replace(level=level, executable=leaf.executable or (executable and level == "pte"))
        pages = self.pages[level]
        del self._leaves[leaf.level][leaf.gfn]
        self._leaves[level].update(
            (leaf.gfn + n, small._replace(gfn=leaf.gfn + n, pfn=leaf.pfn + n))
            for n in range(0, self.pages[leaf.level], pages)
        )

    def write_protect(self, start: int, end: int) -> None:
        """Take the guest's right to write from every leaf that maps a gfn of [start, end)."""
        for leaf in self.within(start, end):
            if leaf.writable:
                self._leaves[leaf.level][leaf.gfn] = leaf._replace(writable=False, untraced=False)

    def within(self, start: int, end: int) -> list[Leaf]:
        """Return the leaves that map a gfn of [start, end), ascending."""
        found = [self._leaves[level][gfn] for level in LEVELS for gfn in self._touched(level, start, end)]
        return sorted(found, key=lambda leaf: leaf.gfn)

    def _touched(self, level: Level, start: int, end: int) -> list[int]:
        leaves, pages = self._leaves[level], self.pages[level]
        first = start & -pages
        if (end - first) // pages < len(leaves):
            return [gfn for gfn in range(first, end, pages) if gfn in leaves]
        return [gfn for gfn in leaves if start - pages < gfn < end]

    def __iter__(self) -> Iterator[Leaf]:
        """Iterate over all leaves."""
        return (leaf for leaves in self._leaves.values() for leaf in leaves.values())
