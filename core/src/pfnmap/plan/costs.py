"""What a mapping costs, as recordings of real kernels show it.

* A user fault that ends at a base page runs twice where the per-VMA lock is tried first: the second pass asks for the
  PMD order again (no PTE table yet), not for the PUD order (a PMD table by then). Faults inside the kernel run once.
* Where the first fault fills the whole vma there is one call of the handler, where mmap does there is none.
* A walk over what is not mapped yet fails, one fixup_user_fault follows, and the walk is repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

from pfnmap.contract.dma import DmaMap, Reach
from pfnmap.contract.plan import HUGE_LEVELS, LEAF_LEVELS, LeafLevel, Run
from pfnmap.plan.paging import Paging
from pfnmap.plan.runs import Levels, blocks
from pfnmap.records import dataclass

__all__ = ["Costs", "Counted", "Spans", "calls", "costs_of", "reach_of"]

Spans: TypeAlias = "Sequence[tuple[int, int]]"
"""Parts of a mapping, as start and end, none empty, in ascending order and apart."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What a mapping costs: leaves per level, calls of the driver's fault handler when user space touches every page
    once in ascending order, bytes of page tables, and a DMA map of all of it (None: nothing is mapped for DMA)."""

    counts: Mapping[LeafLevel, int]
    driver_calls: int
    table_bytes: int
    dma_map: DmaMap | None

    def as_json(self) -> dict[str, Any]:
        """Return it in the form that `plan --json` prints."""
        return {
            "counts": {level: self.counts[level] for level in reversed(LEAF_LEVELS)},
            "driver_calls": self.driver_calls,
            "table_bytes": self.table_bytes,
            "dma_map": self.dma_map.as_json() if self.dma_map else None,
        }


@dataclass(frozen=True, slots=True)
class Counted:
    """All of a mapping that is cut into runs (none: it is not mapped), counted: `leaves` of any size and `pages` of the
    base size, and the calls of the driver's fault handler, `once` for a fault and `again` for each of its passes."""

    leaves: int
    pages: int
    once: int
    again: int
    beside: Mapping[int, int]
    """How many aligned blocks of a size no leaf of that size or a larger maps, for the sizes of leaves."""

    @classmethod
    def of(cls, levels: Levels, runs: Sequence[Run], start: int, end: int) -> Counted:
        """Count what [start, end) is cut into."""
        sizes = levels.sizes
        leaves = sum([run.count for run in runs])
        left = {sizes[level]: beside(levels, runs, start, end, sizes[level]) for level in HUGE_LEVELS}
        once = again = 0
        if levels.filling == "fault" and runs:
            # The second pass finds a table in the PUD entry, but nothing yet in the PMD entry.
            once = leaves + (left[sizes["pud"]] if "pud" in levels.asked else 0)
            again = left[sizes["pmd"]] if "pmd" in levels.asked else 0
        elif levels.filling == "first fault" and runs:
            once = 1
        return cls(leaves, (end - start) // sizes["pte"] if runs else 0, once, again, left)

    def reach(self, levels: Levels, runs: Sequence[Run], delta: int) -> Reach:
        """Return `reach_of` all of it."""
        fixups = {"fault": self.leaves, "first fault": min(self.pages, 1), "mmap": 0}[levels.filling]
        return Reach(self.leaves, self.pages, breaks(levels, runs, delta), fixups, self.once + self.again)


def costs_of(
    paging: Paging,
    levels: Levels,
    runs: Sequence[Run],
    start: int,
    end: int,
    counted: Counted,
    dma_map: DmaMap | None,
) -> Costs:
    """Return what the mapping [start, end), cut into runs (none: it is not mapped), costs; a DMA map of it costs
    `dma_map`."""
    counts = dict.fromkeys(LEAF_LEVELS, 0)
    for run in runs:
        counts[run.level] += run.count
    table_bytes = counts["pmd"] * levels.deposit
    if runs:
        tables = next((tables for reach, tables in paging.tables if end <= reach), paging.tables[-1][1])
        for span, size in tables:
            known = counted.beside.get(span)
            table_bytes += (beside(levels, runs, start, end, span) if known is None else known) * size
    return Costs(counts, counted.once + counted.again * levels.passes, table_bytes, dma_map)


def beside(levels: Levels, runs: Iterable[Run], start: int, end: int, size: int) -> int:
    """Return how many aligned blocks of a size a mapping touches that no leaf of that size or a larger maps."""
    mapped = sum([run.length // size for run in runs if levels.sizes[run.level] >= size])
    return blocks(start, end, size) - mapped


def breaks(levels: Levels, runs: Iterable[Run], delta: int) -> int:
    """Return how often, from run to run, the physical addresses do not follow each other."""
    if levels.checks_pfn:
        return 0
    return sum(a != b for a, b in pairwise(delta % levels.sizes[run.level] for run in runs))


def covered(levels: Levels, runs: Iterable[Run], spans: Spans, size: int) -> int:
    """Return how many aligned blocks of a size spans touch that leaves of that size or a larger map."""
    return sum(touched(_within(spans, run), size) for run in runs if levels.sizes[run.level] >= size)


def leaves_of(levels: Levels, runs: Iterable[Run], spans: Spans) -> dict[LeafLevel, int]:
    """Return how many leaves of each level map something of spans."""
    found: dict[LeafLevel, int] = dict.fromkeys(LEAF_LEVELS, 0)
    for run in runs:
        found[run.level] += touched(_within(spans, run), levels.sizes[run.level])
    return found


def touched(spans: Spans, size: int) -> int:
    """Return how many aligned blocks of a size spans touch, each once."""
    found, last = 0, -1
    for start, end in spans:
        first, last_here = max(start // size, last + 1), (end - 1) // size
        found += max(last_here - first + 1, 0)
        last = max(last, last_here)
    return found


def _within(spans: Spans, run: Run) -> Spans:
    clipped = ((max(start, run.va), min(end, run.end)) for start, end in spans)
    return tuple((start, end) for start, end in clipped if start < end)


def calls(levels: Levels, runs: Sequence[Run], spans: Spans, passes: int) -> int:
    """Return the calls of the driver's fault handler when spans, empty so far, are faulted in page by page."""
    if not runs or not spans or levels.filling == "mmap":
        return 0
    if levels.filling == "first fault":
        return 1
    made = sum(leaves_of(levels, runs, spans).values())
    for level in levels.asked:
        size = levels.sizes[level]
        fallbacks = touched(spans, size) - covered(levels, runs, spans, size)
        # The second pass finds a table in the PUD entry, but nothing yet in the PMD entry.
        made += fallbacks * (passes if level == "pmd" else 1)
    return made


def reach_of(levels: Levels, runs: Sequence[Run], spans: Spans, delta: int) -> Reach:
    """Return what walks over spans meet, one after another; `delta` is physical minus virtual.

    A leaf that two spans touch is walked to for each, and faulted in once. That a break in the physical addresses costs
    a walk more is read from its source and not recorded.
    """
    leaves = pages = broken = 0
    for start, end in spans if runs else ():
        leaves += sum(leaves_of(levels, runs, ((start, end),)).values())
        pages += blocks(start, end, levels.page)
        broken += breaks(levels, [run for run in runs if run.va < end and start < run.end], delta)
    faulted = sum(leaves_of(levels, runs, spans).values())
    fixups = {"fault": faulted, "first fault": min(pages, 1), "mmap": 0}[levels.filling]
    return Reach(leaves, pages, broken, fixups, calls(levels, runs, spans, 1))
