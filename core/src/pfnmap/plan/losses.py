"""What a placement policy leaves smaller than a kernel could map it, over BAR layouts of real devices.

The layouts (devices.json) are those of lspci outputs that people posted; each has its source.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from pfnmap.contract.placement import Area
from pfnmap.contract.plan import HUGE_LEVELS, LEAF_LEVELS, LeafLevel, Request
from pfnmap.contract.region import Msix, Span
from pfnmap.plan.ask import plan
from pfnmap.plan.document import MappingPlan
from pfnmap.sizes import format_size

if TYPE_CHECKING:
    from pfnmap.kernel import Kernel
    from pfnmap.plugins import Registry

__all__ = ["DeviceClass", "Loss", "device_classes", "losses"]

_WINDOW: Final = 0x80_0000_0000
_SMALL: Final = 16 << 10
"""A BAR that another device of the same process has: an NVMe controller's."""


@dataclass(frozen=True)
class DeviceClass:
    """A BAR layout: sizes and widths by index, MSI-X tables and sparse areas where they are known."""

    name: str
    bars: tuple[tuple[int, int, int], ...]
    """Index, bytes, bits."""
    msix: Msix | None
    sparse: Mapping[int, tuple[Span, ...]]

    def requests(self, policy: str, start: int = _WINDOW, *, msix_mappable: bool = True) -> list[Request]:
        """Return a request for each BAR, one after another from an address on, each at a multiple of its size."""
        found: list[Request] = []
        for index, size, bits in self.bars:
            phys = -(-start // size) * size
            start = phys + size
            found.append(
                Request(
                    index,
                    phys,
                    size,
                    device=self.name,
                    policy=policy,
                    bits=bits,
                    msix=self.msix,
                    sparse=self.sparse.get(index, ()),
                    msix_mappable=msix_mappable,
                )
            )
        return found


@dataclass(frozen=True)
class Loss:
    """An area that is mapped with smaller leaves than it could be.

    `counts` and what would be `possible`, why, and the `rule` that would mend it; `bar_counts` and `bar_possible`:
    those of all areas of its BAR; `notes`: what the policy says of itself. `after`: what the same process maps before
    it, where that is the cause; `msix_mappable`: whether the region says that its MSI-X table may be mapped.
    """

    device: str
    bar: int
    bar_size: int
    area: Span
    counts: Mapping[LeafLevel, int]
    possible: Mapping[LeafLevel, int]
    bar_counts: Mapping[LeafLevel, int]
    bar_possible: Mapping[LeafLevel, int]
    reason: str
    rule: str
    notes: tuple[str, ...]
    after: str | None
    msix_mappable: bool

    def as_json(self) -> dict[str, Any]:
        """Return it in the form that `vmm --json` prints."""
        return {
            "device": self.device,
            "bar": self.bar,
            "bar_size": self.bar_size,
            "area": {"offset": self.area.offset, "length": self.area.length},
            "counts": dict(self.counts),
            "possible": dict(self.possible),
            "bar_counts": dict(self.bar_counts),
            "bar_possible": dict(self.bar_possible),
            "reason": self.reason,
            "rule": self.rule,
            "notes": list(self.notes),
            "after": self.after,
            "msix_mappable": self.msix_mappable,
        }


def device_classes() -> list[DeviceClass]:
    """Return the layouts."""
    rows = json.loads(resources.files("pfnmap.plan").joinpath("devices.json").read_text("utf-8"))
    return [
        DeviceClass(
            row["device"],
            tuple((bar["index"], bar["size"], bar["bits"]) for bar in row["bars"]),
            Msix(**row["msix"]) if "msix" in row else None,
            {
                bar: tuple(Span(s["offset"], s["length"]) for s in row["sparse"] if s["bar"] == bar)
                for bar in {s["bar"] for s in row.get("sparse", ())}
            },
        )
        for row in rows
    ]


def losses(
    kernel: Kernel, policy: str, classes: Iterable[DeviceClass], registry: Registry | None = None, **options: Any
) -> list[Loss]:
    """Return what a policy leaves smaller than it could be on a kernel: of each device alone, of those with an MSI-X
    table also where the region does not say that it may be mapped, and behind a small BAR of another device.

    `options` are those of `plan` that are about VMMs. Raises as it does.
    """
    found: list[Loss] = []
    for one in classes:
        for mappable in (True, False) if one.msix else (True,):
            alone = one.requests(policy, msix_mappable=mappable)
            mine = list(_of(kernel, alone, None, registry, options))
            found += mine
            small = Request(0, _WINDOW - _SMALL, _SMALL, device="another device", policy=policy)
            known = {(loss.bar, loss.area, tuple(loss.counts.items())) for loss in mine}
            behind = _of(kernel, [small, *alone], f"a {format_size(_SMALL)} BAR", registry, options)
            found += [x for x in behind if (x.bar, x.area, tuple(x.counts.items())) not in known]
    return found


def _of(
    kernel: Kernel,
    requests: Sequence[Request],
    after: str | None,
    registry: Registry | None,
    options: Mapping[str, Any],
) -> Iterable[Loss]:
    planned = plan(kernel, requests, registry=registry, **options).mappings
    mapped = [(m, m.area) for m in planned if m.area is not None and m.runs]
    # What is congruent modulo the largest leaf that fits is as large as it can be.
    if all(area.congruent for _, area in mapped):
        return
    there = [replace(m.request, policy="aligned", offset=area.offset, length=area.length) for m, area in mapped]
    both = [(*one, could) for one, could in zip(mapped, plan(kernel, there).mappings, strict=True)]
    for mapping, area, could in both:
        counts, possible = mapping.costs.counts, could.costs.counts
        if area.congruent or sum(counts.values()) <= sum(possible.values()):
            continue
        of_bar = [(m, c) for m, _, c in both if (m.device, m.bar) == (mapping.device, mapping.bar)]
        yield Loss(
            mapping.device or "",
            mapping.bar,
            mapping.bar_size,
            Span(area.offset, area.length),
            counts,
            possible,
            _together(m for m, _ in of_bar),
            _together(c for _, c in of_bar),
            _why(mapping, area),
            _rule(could),
            mapping.placed.notes,
            after,
            mapping.request.msix_mappable,
        )


def _together(planned: Iterable[MappingPlan]) -> dict[LeafLevel, int]:
    total = dict.fromkeys(reversed(LEAF_LEVELS), 0)
    for one in planned:
        for level in total:
            total[level] += one.costs.counts[level]
    return total


def _why(mapping: MappingPlan, area: Area) -> str:
    """Why an area is mapped no larger: by the policy's guarantee, not by the one address that stands for it."""
    first = next((row for row in mapping.blocked if row.reason == "not_congruent"), mapping.blocked[0])
    size = format_size(mapping.sizes[first.level])
    if first.reason != "not_congruent":
        return first.detail
    aligned = f"its address is a multiple of {format_size(area.alignment)}"
    if area.luck:
        return f"{aligned} and no more: congruent to the BAR modulo {size} once in {round(1 / area.luck)}"
    off = (mapping.request.phys + area.offset - area.va) % mapping.sizes[first.level]
    return f"{aligned}, and {off:#x} off the BAR's address modulo {size}: never congruent"


def _rule(could: MappingPlan) -> str:
    largest = max((level for level in HUGE_LEVELS if could.costs.counts[level]), key=lambda level: could.sizes[level])
    size = format_size(could.sizes[largest])
    return f"reserve the whole BAR at a multiple of {size}, and map each area at its offset in it"
