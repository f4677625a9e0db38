"""The two placements that need no VMM: what mmap(NULL) gives, and the lowest address congruent to the BAR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from pfnmap.contract.placement import AddressSpace, Area, Placed, Vmm
from pfnmap.contract.plan import Request
from pfnmap.contract.region import Span
from pfnmap.plan.runs import down
from pfnmap.plan.space import Space, lowest_bit, whole

__all__ = ["ALIGNED_BASE", "POLICIES", "AlignedPolicy", "KernelPolicy", "congruent"]

ALIGNED_BASE: Final = 0x1000_0000_0000
"""Policy `aligned` takes the lowest address from here on; from an eighth of the address space where that is less (39 or
42 bits of virtual addresses)."""


class KernelPolicy(Vmm):
    """What mmap(NULL) gives for the mapping as a whole."""

    name = "kernel"

    def place(self, space: AddressSpace, requests: Sequence[Request]) -> list[Placed]:
        assert isinstance(space, Space)
        placed = []
        for request in requests:
            area = space.mmap(request, whole(request))
            note = space.mmap_note(request, area)
            placed.append(Placed((area,), notes=(note,) if note else ()))
        return placed


class AlignedPolicy(Vmm):
    """The lowest address from ALIGNED_BASE on that is congruent to the BAR modulo the largest leaf of this kernel."""

    name = "aligned"

    def place(self, space: AddressSpace, requests: Sequence[Request]) -> list[Placed]:
        assert isinstance(space, Space)
        return [Placed((_aligned(space, request, whole(request)),)) for request in requests]


def _aligned(space: Space, request: Request, span: Span) -> Area:
    base = min(ALIGNED_BASE, (1 << (space.task_size - 1).bit_length()) >> 3)
    largest = max(space.leaves(request), default=space.page)
    off = (down(request.phys, space.page) + span.offset - base) % largest
    return Area(span.offset, span.length, base + off, lowest_bit(off) or largest, congruent=True)


POLICIES: Final[Mapping[str, type[Vmm]]] = {policy.name: policy for policy in (KernelPolicy, AlignedPolicy)}
"""The placements that need no VMM: what mmap(NULL) gives, and the lowest address congruent to the BAR."""


def congruent(space: Space, request: Request, placed: Placed) -> Placed:
    """Return the areas of a BAR, as somebody placed them, at addresses that are congruent to it as by `aligned`."""
    areas = (_aligned(space, request, Span(area.offset, area.length)) for area in placed.areas)
    return replace(placed, areas=tuple(areas), notes=())
