"""Areas of a region, and the rules by which programs choose their addresses.

A rule takes the areas of one BAR and the address below which there is room, and returns them placed. Offsets and
lengths are in bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from pfnmap.contract.placement import AddressSpace, Area, Part, Placed, Unmapped
from pfnmap.contract.plan import Request
from pfnmap.contract.region import Span, covering, overlap, without

__all__ = [
    "GIB",
    "at_once",
    "each_aligned",
    "each_alone",
    "is_sparse",
    "msix_pages",
    "nothing",
    "offered",
    "power_of_two",
    "rest",
    "whole",
    "whole_or_nothing",
]

GIB: Final = 1 << 30
_NOT_OFFERED: Final = "the region's sparse-mmap areas leave it out"


def power_of_two(length: int) -> int:
    """Return the power of two at or above a length."""
    return 1 << (length - 1).bit_length()


def whole(request: Request) -> Span:
    """Return what of a BAR its driver lets user space map, as one part."""
    assert request.length is not None, "the planner settles it"
    return Span(0, request.length)


def is_sparse(request: Request) -> bool:
    """Tell whether the region has the sparse-mmap capability: it says so, or only a part of it can be mapped (what is
    behind nvgrace-gpu's memory)."""
    return bool(request.sparse) or whole(request).length < request.bar_size


def offered(request: Request) -> tuple[Span, ...]:
    """Return the parts of a region that can be mapped, in ascending order: its sparse areas, or all of it."""
    return request.sparse or (whole(request),)


def msix_pages(request: Request, page: int, *, pba: bool) -> dict[Span, str]:
    """Return the pages of a BAR that hold the MSI-X table (and pending bits), with what they hold."""
    if request.msix is None:
        return {}
    found = {"the MSI-X table": request.msix.table_in(request.bar)}
    if pba:
        found["the MSI-X PBA"] = request.msix.pba_in(request.bar)
    return {covering(part, page): what for what, part in found.items() if part is not None}


def rest(request: Request, areas: Iterable[Span], why: dict[Span, str]) -> tuple[Unmapped, ...]:
    """Return what of a BAR is in no area, with why not: what lies there, or else that it cannot be mapped."""
    length = max(whole(request).length, request.bar_size)
    return tuple(
        Unmapped(
            gap.offset,
            gap.length,
            " and ".join(dict.fromkeys(what for hole, what in why.items() if overlap(hole, gap))) or _NOT_OFFERED,
        )
        for gap in without([Span(0, length)], areas)
    )


def nothing(request: Request, reason: str) -> Placed:
    """Return that nothing of a BAR is mapped."""
    return Placed((), slots=(), dma=(), unmapped=(Unmapped(0, request.bar_size, reason),))


def whole_or_nothing(request: Request, program: str) -> Placed | None:
    """Return what becomes of a sparse region where a program knows only whole ones: mmap of it fails."""
    if not is_sparse(request):
        return None
    return nothing(request, f"{program} maps regions whole, and this one has sparse-mmap areas: mmap fails")


def each_alone(space: AddressSpace, request: Request, spans: Sequence[Span], top: int) -> tuple[Area, ...]:
    """Each area as mmap(NULL) places it."""

    def place(span: Span, top: int) -> Area:
        grain = space.mmap_grain(request, span)
        return space.place([Part(request, span, span.offset % grain)], grain, top)[0]

    return _downwards(spans, top, place)


def each_aligned(
    space: AddressSpace, request: Request, spans: Sequence[Span], top: int, grain: Callable[[int], int]
) -> tuple[Area, ...]:
    """Each area at a multiple of what follows from its length, at most 1G."""
    return _downwards(
        spans, top, lambda span, top: space.place([Part(request, span)], min(grain(span.length), GIB), top)[0]
    )


def _downwards(spans: Sequence[Span], top: int, place: Callable[[Span, int], Area]) -> tuple[Area, ...]:
    areas = []
    for span in spans:
        areas.append(place(span, top))
        top = areas[-1].va
    return tuple(areas)


def at_once(space: AddressSpace, request: Request, spans: Sequence[Span], top: int, grain: int) -> tuple[Area, ...]:
    """All areas at their offsets above one base, which is a multiple of a grain."""
    return space.place([Part(request, span, span.offset) for span in spans], grain, top) if spans else ()
