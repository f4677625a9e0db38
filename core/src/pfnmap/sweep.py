"""One question asked over and over: of each release, at each alignment of the address, under each THP setting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from pfnmap.errors import BadInput, Unknown
from pfnmap.release.facts import version

if TYPE_CHECKING:
    from pfnmap.plan import MappingPlan, Plan, Request
    from pfnmap.release.facts import Facts
    from pfnmap.spec import KernelSpec

__all__ = ["KINDS", "Point", "kind_of", "sweep"]

KINDS: Final = ("release", "va", "thp")
_THP: Final = ("never", "madvise", "always")
_FIRST: Final = (6, 1)
"""The oldest line that is asked: what a sweep shows came with 6.12."""

Ask = Callable[["KernelSpec", "Sequence[Request] | None"], "tuple[Sequence[Request], Plan]"]
"""Link a kernel and plan requests on it (None: those of the command line); return them and the plan."""


@dataclass(frozen=True, slots=True)
class Point:
    """What a placement costs at a point: leaves of all BARs, calls of the drivers' handlers, walks of a cold DMA map
    (None where nothing is mapped for DMA), page tables in bytes. `warnings`: what is wrong with it, such as leaves that
    map the wrong memory."""

    at: str
    placement: str
    leaves: int
    driver_calls: int
    table_bytes: int
    dma_walks: int | None
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        costs = {"leaves": self.leaves, "driver_calls": self.driver_calls, "table_bytes": self.table_bytes}
        more = {"dma_walks": self.dma_walks, "warnings": list(self.warnings)}
        return {"at": self.at, "placement": self.placement, **costs, **more}


def kind_of(text: str) -> str:
    """Return what is swept over. Raises BadInput for anything but release, va and thp."""
    if text not in KINDS:
        raise BadInput("--sweep", str(Unknown("kind of sweep", text, KINDS)))
    return text


def sweep(kind: str, spec: KernelSpec, known: Facts, ask: Ask) -> list[Point]:
    """Return the points in ascending order, every placement of each.

    Over `va` the address moves away from one that is congruent to the BAR modulo its largest leaf, by a page, two, four
    and so on, and at last not at all. Raises BadInput for the release of a configuration or a profile, which is one.
    """
    if kind == "thp":
        return [point for thp in _THP for point in _points(thp, ask(replace(spec, thp=thp), None)[1])]
    if kind == "release":
        names = _lines(known)
        return [point for name in names for point in _points(name, ask(replace(spec, release=name), None)[1])]
    return list(_addresses(spec, ask))


def _lines(known: Facts) -> list[str]:
    """The mainline releases from 6.1 to the newest that something is known about."""
    lines = {version(name).line for name in known.releases if name not in known.trees}
    return [f"{major}.{minor}" for major, minor in sorted(lines) if (major, minor) >= _FIRST]


def _addresses(spec: KernelSpec, ask: Ask) -> Iterator[Point]:
    requests, first = ask(spec, None)
    sizes = first.mappings[0].sizes
    largest, page = max(sizes.values()), min(sizes.values())
    one_each = list({(r.device, r.bar, r.offset): replace(r, policy=None) for r in requests}.values())
    bases, at = [], 0x1000_0000_0000
    for request in one_each:
        base = at - at % largest + (request.phys + request.offset) % largest
        bases.append(base)
        at = base + (request.length or request.bar_size) + 2 * largest
    distances = []
    distance = page
    while distance < largest:
        distances.append(distance)
        distance *= 2
    for distance in (*distances, 0):
        moved = [replace(r, va=base + distance) for r, base in zip(one_each, bases, strict=True)]
        yield from _points(hex(distance), ask(spec, moved)[1])


def _points(at: str, plan: Plan) -> Iterator[Point]:
    """The costs of each placement, over all BARs."""
    placements: dict[str, list[MappingPlan]] = {}
    for mapping in plan.mappings:
        placements.setdefault(mapping.policy or "as given", []).append(mapping)
    for name, mappings in placements.items():
        costs = [mapping.costs for mapping in mappings]
        walks = [cost.dma_map.cold_walks for cost in costs if cost.dma_map]
        yield Point(
            at,
            name,
            sum(count for cost in costs for count in cost.counts.values()),
            sum(cost.driver_calls for cost in costs),
            sum(cost.table_bytes for cost in costs),
            sum(walks) if walks else None,
            tuple(dict.fromkeys(text for mapping in mappings for text in mapping.warnings)),
        )
