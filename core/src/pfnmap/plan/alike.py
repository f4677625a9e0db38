"""Requests that differ in nothing which an answer hangs on are planned once for each kernel.

Of where a BAR lies an answer hangs only on the address modulo the leaves that fit into the BAR, as the kernel's own
code does: the addresses that it states are the BAR's own, and whether larger leaves would be congruent is looked at
for each. Not shared is what names a physical address in a sentence (leaves that map the wrong memory, BARs that share
a page), and what a guest has. A property test holds what is shared equal to what is planned anew.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Final, TypeAlias

from pfnmap.contract.placement import Area
from pfnmap.contract.plan import HUGE_LEVELS, Request
from pfnmap.plan.document import MappingPlan, Plan
from pfnmap.plan.mapping import Region
from pfnmap.plan.paging import Paging
from pfnmap.plan.policies import POLICIES
from pfnmap.records import dataclass, replace

if TYPE_CHECKING:
    from pfnmap.kernel import Kernel
    from pfnmap.plan.planner import Question

__all__ = ["Alike"]

_MOST: Final = 1024
"""Mappings that are kept for a kernel; some kilobytes each."""
_ELSE: Final = attrgetter(*(name for name in Request.__slots__ if name != "phys"))

_Congruent: TypeAlias = tuple[bool, ...]


class Alike:
    """The plans that were made on one kernel."""

    def __init__(self, kernel: Kernel) -> None:
        paging = kernel.once(Paging.of)
        self._page = paging.page
        self._sizes = tuple(paging.sizes[level] for level in HUGE_LEVELS)
        self._limit = kernel.phys_limit
        self._plans: dict[Hashable, _Kept] = {}
        self._kept = 0

    def key(self, question: Question) -> Hashable | None:
        """Return what is the same for all questions with the same answer, None for one that has no like."""
        if question.hypervisor is not None:
            return None
        asked = []
        for request in question.requests:
            phys, size = request.phys, request.bar_size
            if request.va is not None or size < self._page or phys < 0 or phys + size > self._limit:
                return None
            asked.append((_ELSE(request), phys if request.phys_assumed else phys % self._modulus(request)))
        return question.mmap_base, question.dma, question.registry, (*question.vmms.values(),), tuple(asked)

    def _modulus(self, request: Request) -> int:
        """The largest leaf that fits into a BAR; of all where one of the core's policies looks at them all."""
        if request.policy in POLICIES:
            return max(self._sizes)
        return max((size for size in self._sizes if size <= request.bar_size), default=self._page)

    def plan(self, key: Hashable, requests: Sequence[Request]) -> Plan | None:
        """Return the plan of requests that are like others before; None where there were none."""
        kept = self._plans.get(key)
        return None if kept is None else kept.plan(requests)

    def keep(self, key: Hashable, plan: Plan, regions: Sequence[Region]) -> None:
        """Keep a plan for those that are like it."""
        sides = (side for row in plan.undetermined for side in (row.if_yes, row.if_no))
        if any(m.warnings for m in plan.mappings) or any(m["warnings"] for side in sides for m in side["mappings"]):
            return
        if self._kept > _MOST:
            self._plans.clear()
            self._kept = 0
        self._kept += len(plan.mappings)
        parts = []
        mappings = iter(plan.mappings)
        for n, region in enumerate(regions):
            larger = tuple(size for size in self._sizes if size > self._modulus(region.request))
            for area in region.areas:
                part = _Part(n, region, area, larger, self._page, {})
                part.found[part.congruent(region.request.phys)] = next(mappings)
                parts.append(part)
        self._plans[key] = _Kept(plan, tuple(parts))


@dataclass(frozen=True, slots=True)
class _Part:
    """One area of request number `number`, planned where it is and is not congruent modulo each of the leaves that are
    `larger` than the BAR."""

    number: int
    region: Region
    area: Area | None
    larger: tuple[int, ...]
    page: int
    found: dict[_Congruent, MappingPlan]

    def congruent(self, phys: int) -> _Congruent:
        if self.area is None:
            return ()
        off = phys // self.page * self.page + self.area.offset - self.area.va
        return tuple([off % size == 0 for size in self.larger])

    def plan(self, phys: int) -> MappingPlan:
        congruent = self.congruent(phys)
        request = replace(self.region.request, phys=phys)
        if congruent not in self.found:
            self.found[congruent] = replace(self.region, request=request).plan(self.area)
        return replace(self.found[congruent], request=request)


@dataclass(frozen=True, slots=True)
class _Kept:
    first: Plan
    parts: tuple[_Part, ...]

    def plan(self, requests: Sequence[Request]) -> Plan:
        first = self.first
        mappings = tuple([part.plan(requests[part.number].phys) for part in self.parts])
        return Plan(first.kernel, mappings, first.undetermined, first.legends, first.changes, first.texts)
