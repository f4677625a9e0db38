"""The plan of one area: cut, counted, and why it is not mapped with larger leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from pfnmap.contract.dma import DmaBackend, DmaMap, Reach
from pfnmap.contract.guest import GuestPlan, Hosted, Hypervisor
from pfnmap.contract.placement import Area, Placed
from pfnmap.contract.plan import HUGE_LEVELS, LeafLevel, Reason, RegionRules, Request, Run
from pfnmap.contract.region import Span
from pfnmap.errors import PluginError
from pfnmap.plan.costs import Costs, Counted, Spans, costs_of, reach_of
from pfnmap.plan.document import MappingPlan
from pfnmap.plan.paging import Paging
from pfnmap.plan.reasons import Blocked
from pfnmap.plan.runs import Levels, cut, down, run_of, up
from pfnmap.plugins import calling
from pfnmap.records import dataclass
from pfnmap.sizes import format_size

if TYPE_CHECKING:
    from pfnmap.kernel import Kernel

__all__ = ["Region"]


@dataclass(frozen=True)
class Region:
    """A request with all that the kernel, the driver and who else takes part say of it."""

    kernel: Kernel
    paging: Paging
    levels: Levels
    rules: RegionRules
    request: Request
    placed: Placed
    backend: DmaBackend | None
    hypervisor: Hypervisor | None

    @property
    def areas(self) -> Sequence[Area | None]:
        """The areas that are planned; None stands for there being none."""
        return self.placed.areas or (None,)

    def plan(self, area: Area | None) -> MappingPlan:
        """Return the plan of an area."""
        start, length, delta = 0, 0, 0
        if area is not None:
            start, length = area.va, area.length
            # vma_to_pfn: the page in which the BAR starts, whatever its offset in it
            delta = down(self.request.phys, self.paging.page) + area.offset - start
        levels, before = self.levels, Levels.before(self.paging, self.rules)
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
            return self._dma(reach_of(levels, runs, ((low, high),), delta))

        return MappingPlan(
            self.request,
            area,
            self.placed,
            runs,
            self._costs(levels, runs, area, delta),
            self._costs(before, flat, area, delta),
            tuple(blocked),
            tuple(self._warnings(levels, runs, delta)),
            () if refused else tuple(self._notes(runs)),
            self._guest(levels, area, delta),
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

    def _dma(self, reach: Reach) -> DmaMap | None:
        if self.backend is None:
            return None
        with calling(self.backend.name, "map()") as gave:
            found = gave(self.backend.explained(self.kernel, reach), DmaMap)
        if min(found.cold_walks, found.cold_fixups, found.cold_driver_calls, found.warm_walks) < 0:
            raise PluginError(self.backend.name, f"map() gave less than nothing: {found}")
        return found

    def _costs(self, levels: Levels, runs: Sequence[Run], area: Area | None, delta: int) -> Costs:
        """What an area costs that is cut into runs, and what its DMA maps do together."""
        start, end = (area.va, area.va + area.length) if area else (0, 0)
        counted = Counted.of(levels, runs, start, end)
        dma_map: DmaMap | None = None
        spans = _parts(area, self.placed.dma)
        if spans == ((start, end),):
            dma_map = self._dma(counted.reach(levels, runs, delta))
        elif spans:
            dma_map = self._dma(reach_of(levels, runs, spans, delta))
        return costs_of(self.paging, levels, runs, start, end, counted, dma_map)

    def _guest(self, levels: Levels, area: Area | None, delta: int) -> GuestPlan | None:
        """How a guest has the slots of an area, put together; each is cut by itself: its ends cut leaves, too."""
        if self.hypervisor is None or area is None or not (slots := _parts(area, self.placed.slots)):
            return None
        base = self.request.gpa
        if base is not None:
            base -= self.request.offset
        elif self.placed.gpa is not None:
            base = self.placed.gpa
        runs = self._runs(levels, area.va, area.va + area.length, delta)
        whole: GuestPlan | None = None
        for n, (start, end) in enumerate(slots):
            offset = area.offset + start - area.va
            hosted = Hosted(
                self._runs(levels, start, end, delta),
                start,
                levels.sizes,
                self.request.bar_size,
                offset,
                self.request.phys + offset,
                None if base is None else base + offset,
                self.rules.pgoff_is_pfn,
                _reach_behind(levels, runs, slots[:n]),
            )
            with calling(self.hypervisor.name, "guest()") as gave:
                one = gave(self.hypervisor.guest(self.kernel, hosted), GuestPlan)
            whole = one if whole is None else whole + one
        return whole

    def _runs(self, levels: Levels, start: int, end: int, delta: int) -> tuple[Run, ...]:
        return () if self.rules.refused else tuple(run for run in cut(levels, start, end, delta)[0] if run.length)

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
        if self.backend is not None:
            with calling(self.backend.name, "note()") as gave:
                note = gave(self.kernel.once(self.backend.note), str)
            if note:
                yield note
        yield from self.placed.notes


def _reach_behind(levels: Levels, runs: Sequence[Run], before: Spans) -> Callable[[int, int], Reach]:
    """Return what a walk over a part meets where parts before it are faulted in already."""
    there = reach_of(levels, runs, before, 0)

    def reach(start: int, end: int) -> Reach:
        return reach_of(levels, runs, (*before, (start, end)), 0) - there if start < end else Reach(0, 0, 0, 0, 0)

    return reach


def _parts(area: Area | None, spans: Sequence[Span] | None) -> Spans:
    """Return what of an area lies in parts of its BAR (None: all of it), as addresses."""
    if area is None:
        return ()
    start, end = area.va, area.va + area.length
    if spans is None:
        return ((start, end),) if start < end else ()
    shift = area.va - area.offset
    clipped = [(max(span.offset + shift, start), min(span.end + shift, end)) for span in spans]
    return tuple([(low, high) for low, high in clipped if low < high])
