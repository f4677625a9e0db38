"""Where mappings go: at a given address, by one of the two core policies, or as a VMM's plugin says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pfnmap.contract.placement import AddressSpace, Area, Part, Placed, Unmapped, Vmm
from pfnmap.contract.plan import Image, Request
from pfnmap.contract.region import Span
from pfnmap.errors import BadInput, NotInstalled, PluginError, Unknown, nearest
from pfnmap.offers import how_to_install
from pfnmap.plan.paging import Paging
from pfnmap.plan.runs import Levels, down, up
from pfnmap.plugins import calling
from pfnmap.records import dataclass
from pfnmap.sizes import format_size

if TYPE_CHECKING:
    from pfnmap.plugins import Registry

__all__ = [
    "ALIGNED_BASE",
    "MMAP_BASE",
    "POLICIES",
    "AlignedPolicy",
    "KernelPolicy",
    "Space",
    "congruent",
    "place",
    "vmm_class",
    "vmm_named",
]

MMAP_BASE: Final = 0x7FFF_F7FF_F000
"""Where mmap(NULL) searches downwards from in policy `kernel`, unless the address space ends below. Only page-aligned
on purpose: a real process's base is random; where it happens to be 2M-aligned, larger leaves are luck (FINDINGS F7)."""

ALIGNED_BASE: Final = 0x1000_0000_0000
"""Policy `aligned` takes the lowest address from here on; from an eighth of the address space where that is less (39 or
42 bits of virtual addresses)."""

_VERSION = re.compile(r"-v?(?=\d)")


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
            raise _no_room(request, length, "nowhere", self.task_size)
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
            raise _no_room(parts[0].request, length, "nowhere", self.task_size)
        return best

    def _area(self, part: Part, va: int, grain: int) -> Area:
        """Describe an area at `va`, of which nothing is guaranteed but what it is modulo a grain."""
        larger = self._next_leaf(part, va, grain)
        luck = 0.0 if larger is None or self._off(part, va) % grain else min(grain / larger, 1.0)
        alignment = _lowest_bit(va % grain) or grain
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


def _lowest_bit(value: int) -> int:
    return value & -value


def _no_room(request: Request, length: int, where: str, task_size: int) -> BadInput:
    return BadInput(request.where, f"{format_size(length)} fit {where} in an address space of {task_size:#x} bytes")


class KernelPolicy(Vmm):
    """What mmap(NULL) gives for the mapping as a whole."""

    name = "kernel"

    def place(self, space: AddressSpace, requests: Sequence[Request]) -> list[Placed]:
        assert isinstance(space, Space)
        placed = []
        for request in requests:
            area = space.mmap(request, _whole(request))
            note = space.mmap_note(request, area)
            placed.append(Placed((area,), notes=(note,) if note else ()))
        return placed


class AlignedPolicy(Vmm):
    """The lowest address from ALIGNED_BASE on that is congruent to the BAR modulo the largest leaf of this kernel."""

    name = "aligned"

    def place(self, space: AddressSpace, requests: Sequence[Request]) -> list[Placed]:
        assert isinstance(space, Space)
        return [Placed((_aligned(space, request, _whole(request)),)) for request in requests]


def _aligned(space: Space, request: Request, span: Span) -> Area:
    base = min(ALIGNED_BASE, (1 << (space.task_size - 1).bit_length()) >> 3)
    largest = max(space.leaves(request), default=space.page)
    off = (down(request.phys, space.page) + span.offset - base) % largest
    return Area(span.offset, span.length, base + off, _lowest_bit(off) or largest, congruent=True)


POLICIES: Final[Mapping[str, type[Vmm]]] = {policy.name: policy for policy in (KernelPolicy, AlignedPolicy)}
"""The placements that need no VMM: what mmap(NULL) gives, and the lowest address congruent to the BAR."""


def _whole(request: Request) -> Span:
    assert request.length is not None, "the planner settles it"
    return Span(request.offset, request.length)


def vmm_named(text: str, registry: Registry, options: Sequence[str] = (), *, newest: bool = False) -> Vmm:
    """Return the placement policy that ``NAME`` or ``NAME-VERSION`` (or ``NAME-vVERSION``) means; ``-`` and ``_`` in
    names are the same.
    `newest`: a version newer than what is known is taken for the newest known.

    Raises Unknown for a name or a version that nobody knows, PluginError for a plugin that cannot be used, BadInput for
    an option that it does not take.
    """
    version = [*_VERSION.split(text, maxsplit=1), ""][1]
    found = vmm_class(text, registry)
    with calling(found.name, "__init__()") as gave:
        return gave(found(version, options, newest=newest), found)


def vmm_class(text: str, registry: Registry) -> type[Vmm]:
    """Return the class of the placement policy that ``NAME`` or ``NAME-VERSION`` names. Raises as `vmm_named` does."""
    name = _VERSION.split(text, maxsplit=1)[0]
    plugins = {plugin.name.replace("-", "_"): plugin.name for plugin in registry.plugins("vmm")}
    key = name.replace("-", "_")
    if key not in plugins and (hint := how_to_install(key, "vmm")):
        raise NotInstalled("placement policy", name, hint)
    if key not in plugins:
        names = registry.names("vmm")
        raise Unknown("placement policy", text, names, every=not nearest(text, names))
    found: type[Vmm] = registry.load("vmm", plugins[key])
    return found


def place(
    space: Space, requests: Sequence[Request], policies: Mapping[str, Vmm], refused: Sequence[str]
) -> list[Placed]:
    """Return where each request goes: at its own address, or where its policy puts it among all that it places.

    `refused`: why a request cannot be mapped, or empty; a VMM maps no such BAR. Raises BadInput for an address that
    cannot be and for a request with neither, PluginError for a policy that does not answer every request.
    """
    placed: dict[int, Placed] = {}
    groups: dict[str, list[int]] = {}
    for n, (request, why) in enumerate(zip(requests, refused, strict=True)):
        if request.va is not None:
            placed[n] = _at(request, request.va)
        elif request.policy is None:
            raise BadInput(request.where, "neither an address nor a placement policy is given")
        elif why and policies[request.policy].name not in POLICIES:
            placed[n] = Placed((), slots=(), dma=(), unmapped=(Unmapped(0, request.bar_size, why),))
        else:
            if request.offset and policies[request.policy].name not in POLICIES:
                raise BadInput(request.where, f"{request.policy} maps whole BARs, and this begins at an offset")
            groups.setdefault(request.policy, []).append(n)
    for name, members in groups.items():
        policy = policies[name]
        with calling(policy.name, "place()") as gave:
            answers = gave(list(policy.place(space, [requests[n] for n in members])), list[Placed])
        if len(answers) != len(members):
            raise PluginError(policy.name, f"place() gave {len(answers)} answers for {len(members)} requests")
        said = (policy.assumed,) if policy.assumed else ()
        placed.update((n, replace(one, notes=(*said, *one.notes))) for n, one in zip(members, answers, strict=True))
    for n, request in enumerate(requests):
        for area in placed[n].areas:
            _check(space, request, area)
    return [placed[n] for n in range(len(requests))]


def congruent(space: Space, request: Request, placed: Placed) -> Placed:
    """Return the areas of a BAR, as somebody placed them, at addresses that are congruent to it as by `aligned`."""
    areas = (_aligned(space, request, Span(area.offset, area.length)) for area in placed.areas)
    return replace(placed, areas=tuple(areas), notes=())


def _at(request: Request, va: int) -> Placed:
    whole = _whole(request)
    return Placed((Area(whole.offset, whole.length, va, 1, congruent=False),))


def _check(space: Space, request: Request, area: Area) -> None:
    """Refuse an area that mmap would refuse there."""
    if area.va % space.page:
        page = format_size(space.page)
        raise BadInput(request.where, f"VA {area.va:#x} is not a multiple of the {page} page: mmap gives EINVAL")
    if area.va < 0 or area.va + area.length > space.task_size:
        raise _no_room(request, area.length, f"not at VA {area.va:#x}", space.task_size)
