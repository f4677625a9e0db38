"""An otherwise empty address space: what mmap(NULL) gives in it, and what an area's address promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pfnmap.contract.placement import Area, Part
from pfnmap.contract.plan import Image, Request
from pfnmap.contract.region import Span
from pfnmap.errors import BadInput
from pfnmap.plan.paging import Paging
from pfnmap.plan.runs import Levels, down, up
from pfnmap.records import dataclass
from pfnmap.sizes import format_size

__all__ = ["MMAP_BASE", "Space", "lowest_bit", "no_room", "whole"]

MMAP_BASE: Final = 0x7FFF_F7FF_F000
"""Where mmap(NULL) searches downwards from in policy `kernel`, unless the address space ends below. Only page-aligned
on purpose: a real process's base is random; where it happens to be 2M-aligned, larger leaves are luck (FINDINGS F7)."""


@dataclass(frozen=True)
class Space:
    """An otherwise empty address space of a `kernel`. `levels`: at which levels each request can be mapped, by its
    device and BAR; `asked_base`: where mmap(NULL) is to search downwards from (None: MMAP_BASE)."""

    kernel: Image
    paging: Paging
    levels: Mapping[tuple[str | None, int], Levels]
    asked_base: int | None = None

    @property
    def page(self) -> int:
        """Bytes of a base page."""
        return self.paging.page

    @property
    def task_size(self) -> int:
        """The first address past user space."""
        return self.paging.task_size

    @property
    def base(self) -> int:
        """Where mmap(NULL) searches downwards from. Raises BadInput for one outside the address space."""
        default = min(MMAP_BASE, self.paging.stack_top - self.page)
        base = default if self.asked_base is None else self.asked_base
        if not 0 < base <= self.task_size:
            raise BadInput("mmap base", f"{base:#x} is not in an address space of {self.task_size:#x} bytes")
        return down(base, self.page)

    def leaf(self, request: Request, span: Span) -> int:
        """Return the largest leaf (bytes) that can be mapped of a request and of which a block fits into a part."""
        return self._fitting(request, span)[-1]

    def _fitting(self, request: Request, span: Span) -> list[int]:
        """The sizes of a page and of the larger leaves of which a block fits, the smallest first."""
        start = down(request.phys, self.page) + span.offset
        end = start + span.length
        return [self.page, *(size for size in self.leaves(request) if up(start, size) + size <= end)]

    def leaves(self, request: Request) -> list[int]:
        """Return the sizes of leaves that can be mapped of a request, the smallest first."""
        levels = self._levels(request)
        return sorted(levels.sizes[level] for level in levels.leaves)

    def mmap(self, request: Request, span: Span) -> Area:
        """Return what mmap(NULL) gives for a part of a BAR.

        mm/huge_memory.c __thp_get_unmapped_area in 6.12.y: room for one leaf more, then up to the next address that is
        congruent to the file offset modulo the leaf's size (null.* records, with the PMD's).
        """
        length, base, grain = span.length, self.base, self.mmap_grain(request, span)
        lowest = base - length - grain
        if grain == self.page or lowest < self.page:
            va, grain = base - length, self.page
        else:
            va = lowest + ((span.offset - lowest) % grain or grain)
        if va < self.page:
            raise no_room(request, length, "nowhere", self.task_size)
        return self._area(Part(request, span), va, grain)

    def mmap_grain(self, request: Request, span: Span) -> int:
        """Return modulo what mmap(NULL) makes a part of a BAR congruent to its file offset: the largest of these sizes
        of which a block fits, or a page."""
        sizes = {self.paging.sizes[level] for level in self._levels(request).mapping_order}
        pmd = self.paging.sizes["pmd"]
        if self.paging.thp_aligned and span.length % pmd == 0:
            sizes.add(pmd)
        end = span.offset + span.length
        return max((size for size in sizes if up(span.offset, size) + size <= end), default=self.page)

    def place(self, parts: Sequence[Part], grain: int, top: int | None = None) -> tuple[Area, ...]:
        """Return the areas of parts above one base, of which nothing is known but that it is a multiple of a grain.

        A base at which a part is lucky is left for the next one below: that one is off by a grain. Where every base
        makes some part lucky, one with the fewest is taken.
        """
        grain = max(grain, self.page)
        length = max(part.at + part.span.length for part in parts)
        highest = down((self.base if top is None else top) - length, grain)
        best: tuple[Area, ...] = ()
        fewest = len(parts) + 1
        for base in range(highest, 0, -grain)[: len(parts) + 1]:
            areas = tuple(self._area(part, base + part.at, grain) for part in parts)
            lucky = sum(self._is_lucky(part, area, grain) for part, area in zip(parts, areas, strict=True))
            if lucky < fewest:
                best, fewest = areas, lucky
            if not lucky:
                break
        if not best:
            raise no_room(parts[0].request, length, "nowhere", self.task_size)
        return best

    def _area(self, part: Part, va: int, grain: int) -> Area:
        """Describe an area at `va`, of which nothing is guaranteed but what it is modulo a grain."""
        larger = self._next_leaf(part, va, grain)
        luck = 0.0 if larger is None or self._off(part, va) % grain else min(grain / larger, 1.0)
        alignment = lowest_bit(va % grain) or grain
        return Area(part.span.offset, part.span.length, va, alignment, larger is None, luck)

    def _next_leaf(self, part: Part, va: int, grain: int) -> int | None:
        """The smallest leaf that fits and is not guaranteed; None: all are."""
        off = self._off(part, va)
        fitting = self._fitting(part.request, part.span)
        return next((size for size in fitting if size > grain or off % size), None)

    def _is_lucky(self, part: Part, area: Area, grain: int) -> bool:
        larger = self._next_leaf(part, area.va, grain)
        return larger is not None and self._off(part, area.va) % larger == 0

    def _off(self, part: Part, va: int) -> int:
        return down(part.request.phys, self.page) + part.span.offset - va

    def _levels(self, request: Request) -> Levels:
        return self.levels[request.device, request.bar]

    def mmap_note(self, request: Request, area: Area) -> str:
        """Return what has to be said of an area that mmap(NULL) placed; empty: nothing."""
        pmd = self.paging.sizes["pmd"]
        if not self._levels(request).leaves or area.length < pmd:
            return ""
        grain = self.mmap_grain(request, Span(area.offset, area.length))
        if grain > self.page:
            larger = "" if self._levels(request).mapping_order else ", never modulo a larger leaf"
            return f"mmap(NULL) makes such mappings congruent modulo {format_size(grain)}{larger}"
        found = "no larger leaf fits, below another base one may by luck"
        if (down(request.phys, self.page) + area.offset - area.va) % pmd == 0:
            found = f"they are congruent modulo {format_size(pmd)} by luck"
        return f"mmap(NULL) aligns such mappings to pages only: below {self.base:#x} {found}"


def lowest_bit(value: int) -> int:
    """Return the largest power of two that divides a value; 0 for 0."""
    return value & -value


def no_room(request: Request, length: int, where: str, task_size: int) -> BadInput:
    """Say that so many bytes find no room there."""
    return BadInput(request.where, f"{format_size(length)} fit {where} in an address space of {task_size:#x} bytes")


def whole(request: Request) -> Span:
    """Return all of a BAR that a request asks for."""
    assert request.length is not None, "the planner settles it"
    return Span(request.offset, request.length)
