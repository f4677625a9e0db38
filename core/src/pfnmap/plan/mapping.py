"""The plan of one area: cut, counted, and why it is not mapped with larger leaves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pfnmap.contract.dma import DmaBackend, DmaMap
from pfnmap.contract.guest import GuestPlan, Hosted, Hypervisor
from pfnmap.contract.placement import Area, Placed, Span
from pfnmap.contract.plan import HUGE_LEVELS, LeafLevel, Reason, RegionRules, Request, Run
from pfnmap.errors import PluginError
from pfnmap.plan.costs import costs_of, reach_of
from pfnmap.plan.document import MappingPlan
from pfnmap.plan.paging import Paging
from pfnmap.plan.reasons import Blocked
from pfnmap.plan.runs import Levels, cut, down, run_of, up
from pfnmap.sizes import format_size

if TYPE_CHECKING:
    from pfnmap.kernel import Kernel

__all__ = ["Region"]


@dataclass(frozen=True)
class Region:
    """A request with all that the kernel, the driver and who else takes part say of it."""

    kernel: Kernel
    paging: Paging
    rules: RegionRules
    request: Request
    placed: Placed
    backend: DmaBackend | None
    hypervisor: Hypervisor | None

    def plans(self) -> Iterable[MappingPlan]:
        """Return the plan of each area; one without an area where there is none."""
        return (self._plan(area) for area in self.placed.areas or (None,))

    def _plan(self, area: Area | None) -> MappingPlan:
        start, length, delta = 0, 0, 0
        if area is not None:
            start, length = area.va, area.length
            # vma_to_pfn: the page in which the BAR starts, whatever its offset in it
            delta = down(self.request.phys, self.paging.page) + area.offset - start
        levels, before = Levels.of(self.paging, self.rules), Levels.before(self.paging, self.rules)
        end, refused = start + length, self.rules.refused
        pages = run_of(levels, start, end, "pte")
        cuts, steps = ((pages,), 0) if refused or not length else cut(levels, start, end, delta)
        runs = () if refused else tuple(run for run in cuts if run.length)
        flat = () if refused or not length else (pages,)
        blocked = self._not_mapped(start, length) + [
            self._blocked(levels, run, level, start, end, delta)
            for run in cuts
            for level in HUGE_LEVELS
            if run.length and levels.sizes[level] > levels.sizes[run.level]
        ]

        def map_part(low: int, high: int) -> DmaMap | None:
            return self._dma(levels, runs, low, high, delta)

        return MappingPlan(
            self.request,
            area,
            self.placed,
            runs,
            costs_of(self.paging, levels, runs, start, end, self._dma_spans(levels, runs, area, delta)),
            costs_of(self.paging, before, flat, start, end, self._dma_spans(before, flat, area, delta)),
            tuple(blocked),
            tuple(self._warnings(levels, runs, delta)),
            () if refused else tuple(self._notes(runs)),
            self._guest(levels, runs, area),
            steps + len(cuts) * len(HUGE_LEVELS),
            levels.sizes,
            map_part,
        )

    # why not larger

    def _not_mapped(self, start: int, length: int) -> list[Blocked]:
        refused = self.rules.refused
        return [Blocked(start, length, "pte", "not_mmapable", refused)] if refused and length else []

    def _blocked(self, levels: Levels, run: Run, level: LeafLevel, start: int, end: int, delta: int) -> Blocked:
        size = levels.sizes[level]
        name = format_size(size)
        found = [Reason("not_mmapable", self.rules.refused)] if self.rules.refused else []
        found += self.paging.reasons[level]
        found += self.rules.reasons.get(level, ())
        off = -delta % size
        if off and (levels.checks_pfn or not self.paging.huge):
            found.append(Reason("not_congruent", f"VA is {off:#x} off the BAR's address modulo {name}"))
        low, high = down(run.va, size), up(run.end, size)
        if end - start < size:
            what = f"the mapping has {format_size(end - start)}, less than one {name} leaf"
            found.append(Reason("too_small", what))
        if up(max(low, start), size) + size > min(down(end, size), high):
            block = f"the {name}-aligned block {low:#x}-{low + size:#x} does not fit"
            if high - low > size:
                block = f"none of the {name}-aligned blocks of {low:#x}-{high:#x} fits"
            found.append(Reason("vma_edge", f"{block} in the mapping {start:#x}-{end:#x}"))
        if not found:
            raise PluginError(self.request.driver, f"its region() does not say why it maps no {level} leaf")
        return Blocked.by(run.va, run.length, level, found)

    # costs

    def _dma(self, levels: Levels, runs: Sequence[Run], start: int, end: int, delta: int) -> DmaMap | None:
        if self.backend is None:
            return None
        return self.backend.map(self.kernel, reach_of(levels, runs, start, end, delta))

    def _dma_spans(self, levels: Levels, runs: Sequence[Run], area: Area | None, delta: int) -> DmaMap | None:
        """What the DMA maps of an area cost, together."""
        if area is None:
            return None
        spans = (Span(area.offset, area.length),) if self.placed.dma is None else self.placed.dma
        total: DmaMap | None = None
        for span in spans:
            low = max(span.offset, area.offset) - area.offset + area.va
            high = min(span.offset + span.length, area.offset + area.length) - area.offset + area.va
            found = self._dma(levels, runs, low, high, delta) if low < high else None
            total = total + found if total and found else total or found
        return total

    def _guest(self, levels: Levels, runs: tuple[Run, ...], area: Area | None) -> GuestPlan | None:
        if self.hypervisor is None or area is None:
            return None
        reach = reach_of(levels, runs, area.va, area.va + area.length, 0)
        gpa = self.request.gpa
        hosted = Hosted(
            runs,
            area.va,
            levels.sizes,
            self.request.bar_size,
            area.offset,
            gpa if gpa is None else gpa + area.offset - self.request.offset,
            reach.fixups,
            reach.driver_calls,
            self.rules.pgoff_is_pfn,
        )
        return self.hypervisor.guest(self.kernel, hosted)

    # in words

    def _warnings(self, levels: Levels, runs: Iterable[Run], delta: int) -> Iterable[str]:
        for run in runs:
            size = levels.sizes[run.level]
            right = run.va + delta
            if off := right % size:
                yield (
                    f"WRONG MEMORY: the {format_size(size)} leaf at VA {run.va:#x} maps {right - off:#x} instead of "
                    f"{right:#x}, {off:#x} below: {self.rules.unchecked}"
                )

    def _notes(self, runs: Iterable[Run]) -> Iterable[str]:
        if self.rules.unaligned and any(run.level != "pte" for run in runs):
            yield (
                "a first touch that is not at the start of a block leaves that block to smaller entries:"
                f" {self.rules.unaligned}"
            )
        if self.backend is not None and (note := self.backend.note(self.kernel)):
            yield note
        yield from self.placed.notes
