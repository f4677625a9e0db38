"""A mapping cut into runs: at most five, whatever its size.

Base pages up to the first aligned PMD block, PMD leaves up to the first aligned PUD block, PUD leaves, and the same
mirrored. A level counts only where the driver is *asked* for it and answers with a *leaf* (`Levels`), the aligned block
lies in the mapping, and VA and physical address are congruent modulo its size (where the driver looks at that).
"""

from __future__ import annotations

from collections.abc import Mapping

from pfnmap.contract.plan import HUGE_LEVELS, Filling, LeafLevel, RegionRules, Run
from pfnmap.plan.paging import Paging
from pfnmap.records import dataclass

__all__ = ["Levels", "blocks", "body", "cut", "down", "run_of", "up"]


def down(value: int, size: int) -> int:
    """Return the multiple of a size at or below a value."""
    return value // size * size


def up(value: int, size: int) -> int:
    """Return the multiple of a size at or above a value."""
    return -(-value // size) * size


def blocks(start: int, end: int, size: int) -> int:
    """Return how many aligned blocks [start, end) touches."""
    return (up(end, size) - down(start, size)) // size if start < end else 0


@dataclass(frozen=True)
class Levels:
    """At which levels one region can be mapped: what a kernel and its driver say, taken together.

    `sizes`: bytes of a leaf per level. `filling`: when entries appear. `asked`: the levels that a fault asks the
    driver's huge_fault for; `leaves`: those at which leaves appear. `checks_pfn`: only where the PFN is aligned, too.
    `passes`: of a user fault that ends at a base page. `deposit`: bytes of page table that a PMD leaf needs.
    `mapping_order`: the levels of which mmap(NULL) asks the driver.
    """

    sizes: Mapping[LeafLevel, int]
    filling: Filling
    asked: frozenset[LeafLevel]
    leaves: frozenset[LeafLevel]
    checks_pfn: bool
    passes: int
    deposit: int
    mapping_order: frozenset[LeafLevel] = frozenset()

    @classmethod
    def of(cls, paging: Paging, rules: RegionRules) -> Levels:
        """Return those of a region on a kernel."""
        asked: frozenset[LeafLevel] = frozenset()
        leaves: frozenset[LeafLevel] = frozenset()
        if rules.filling == "mmap":
            leaves = paging.remapped
        elif rules.filling == "fault" and rules.huge_fault:
            asked = paging.asked
            leaves = asked & paging.entries & rules.answers
        deposit = paging.deposit if rules.filling == "fault" else 0
        checked = not rules.unchecked
        order = rules.mapping_order
        return cls(paging.sizes, rules.filling, asked, leaves, checked, paging.passes, deposit, order)

    @classmethod
    def before(cls, paging: Paging, rules: RegionRules) -> Levels:
        """Return those of a region without huge pfnmaps, as before 6.12."""
        return cls(paging.sizes, rules.before, frozenset(), frozenset(), not rules.unchecked, paging.passes, 0)

    @property
    def page(self) -> int:
        """Bytes of a base page."""
        return self.sizes["pte"]


def cut(levels: Levels, start: int, end: int, delta: int) -> tuple[tuple[Run, ...], int]:
    """Cut a mapping into five runs, some of them empty, and count the steps; `delta` is physical minus virtual."""
    low, high = start, end
    level: LeafLevel = "pte"
    before: list[Run] = []
    after: list[Run] = []
    steps = 0
    for larger in HUGE_LEVELS:
        steps += 1
        inner = body(levels, larger, start, end, delta)
        before.append(run_of(levels, low, inner[0] if inner else low, level))
        after.append(run_of(levels, inner[1] if inner else high, high, level))
        if inner:
            low, high = inner
            level = larger
    return (*before, run_of(levels, low, high, level), *reversed(after)), steps


def body(levels: Levels, level: LeafLevel, start: int, end: int, delta: int) -> tuple[int, int] | None:
    """Return what of [start, end) is mapped at a level or at a larger one; None if nothing is."""
    size = levels.sizes[level]
    low, high = up(start, size), down(end, size)
    congruent = delta % size == 0 or not levels.checks_pfn
    return (low, high) if level in levels.leaves and congruent and low < high else None


def run_of(levels: Levels, start: int, end: int, level: LeafLevel) -> Run:
    """Return the run of a level from `start` to `end`."""
    return Run(start, end - start, level, (end - start) // levels.sizes[level])
