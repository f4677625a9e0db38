"""A plan as an object, and as the document that ``plan --json`` prints."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from pfnmap.contract.dma import DmaMap
from pfnmap.contract.guest import GuestPlan
from pfnmap.contract.placement import Area, Placed
from pfnmap.contract.plan import LeafLevel, Request, Run
from pfnmap.plan.costs import Costs
from pfnmap.plan.reasons import Blocked
from pfnmap.records import dataclass

__all__ = ["MappingPlan", "Plan", "Undetermined"]


@dataclass(frozen=True)
class MappingPlan:
    """The plan of one area of one request. `area` is None where nothing of the BAR is mapped. `before` is what the same
    mapping costs without huge pfnmaps, as before 6.12. `warnings` tell of harm, `notes` of what the answer hangs on.
    `steps` counts the work done, which does not depend on sizes. `guest`: how a guest has it, where that was asked for.
    `sizes`: bytes of a leaf by level. `map_part(start, end)`: what a DMA map of a part costs.
    """

    request: Request
    area: Area | None
    placed: Placed
    runs: tuple[Run, ...]
    costs: Costs
    before: Costs
    blocked: tuple[Blocked, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    guest: GuestPlan | None
    steps: int = field(compare=False)
    sizes: Mapping[LeafLevel, int] = field(compare=False, repr=False)
    map_part: Callable[[int, int], DmaMap | None] = field(compare=False, repr=False)
    texts: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """What of its JSON is written already; plans that differ in where the BAR lies share it."""

    @property
    def device(self) -> str | None:
        """The PCI address, or None."""
        return self.request.device

    @property
    def bar(self) -> int:
        """The index of the BAR."""
        return self.request.bar

    @property
    def bar_size(self) -> int:
        """Bytes of the BAR."""
        return self.request.bar_size

    @property
    def policy(self) -> str | None:
        """Who chose the address."""
        return self.request.policy

    @property
    def offset(self) -> int:
        """Where the mapped part begins in the BAR."""
        return self.area.offset if self.area else self.request.offset

    @property
    def length(self) -> int:
        """Bytes that are mapped, whole pages."""
        return self.area.length if self.area else 0

    @property
    def phys(self) -> int:
        """The physical address of the mapped part."""
        return self.request.phys + self.offset

    @property
    def va(self) -> int | None:
        """Where it is mapped."""
        return self.area.va if self.area else None

    def dma_map(self, va: int, length: int) -> DmaMap:
        """Return what a DMA map of a part of the mapping costs (page-aligned). It must be one that is mapped for
        DMA."""
        found = self.map_part(va, va + length)
        assert found is not None, "nothing maps it for DMA"
        return found

    def answer(self) -> dict[str, Any]:
        """Return the part that is compared when a change of unknown state is planned both ways."""
        return {
            "device": self.device,
            "bar": self.bar,
            "policy": self.policy,
            "va": None if self.va is None else hex(self.va),
            **self.costs.as_json(),
            "warnings": list(self.warnings),
            **self._guest_json(),
        }

    def _guest_json(self) -> dict[str, Any]:
        return {"guest": self.guest.as_json()} if self.guest else {}

    def as_json(self) -> dict[str, Any]:
        """Return it in the form that `plan --json` prints."""
        return {**self._who_json(), **self._where_json(), **self._shared_json()}

    def dumped(self) -> str:
        """Return `as_json` as text."""
        texts = self.texts
        if not texts:
            texts |= {"who": json.dumps(self._who_json())[:-1], "shared": json.dumps(self._shared_json())[1:]}
        return f"{texts['who']}, {json.dumps(self._where_json())[1:-1]}, {texts['shared']}"

    def _who_json(self) -> dict[str, Any]:
        return {"device": self.device, "bar": self.bar, "policy": self.policy}

    def _shared_json(self) -> dict[str, Any]:
        """All that does not hang on where the BAR lies."""
        return {
            "va": None if self.va is None else hex(self.va),
            "length": self.length,
            "runs": [
                {"va": hex(run.va), "length": run.length, "level": run.level, "count": run.count} for run in self.runs
            ],
            **self.costs.as_json(),
            "blocked": [
                {
                    "va": hex(row.va),
                    "length": row.length,
                    "level": row.level,
                    "reason": row.reason,
                    "detail": row.detail,
                    "also": list(row.also),
                }
                for row in self.blocked
            ],
            "offset": self.offset,
            "bar_size": self.bar_size,
            "sizes": dict(self.sizes),
            "driver": self.request.driver,
            **({"input": self.request.input._asdict()} if self.request.input else {}),
            **self._placed_json(),
            "before_huge_pfnmap": self.before.as_json(),
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            **self._guest_json(),
        }

    def _where_json(self) -> dict[str, Any]:
        candidates = list(self.request.candidates)
        return {"phys": None, "candidates": candidates} if candidates else {"phys": hex(self.phys)}

    def _placed_json(self) -> dict[str, Any]:
        """What the placement says: of the area (null for an address that was given), and of the whole BAR."""
        area, placed = self.area, self.placed
        chosen = area if self.request.va is None else None
        return {
            "area": {"offset": area.offset, "length": area.length} if area else None,
            "alignment": chosen.alignment if chosen else None,
            "congruent": chosen.congruent if chosen else None,
            "luck": chosen.luck if chosen else None,
            "slots": [
                {"gpa_offset": part.offset, "length": part.length}
                for part in (placed.areas if placed.slots is None else placed.slots)
            ],
            "dma": [
                {"offset": part.offset, "length": part.length}
                for part in (placed.areas if placed.dma is None else placed.dma)
                if self.costs.dma_map
            ],
            "unmapped": [
                {"offset": part.offset, "length": part.length, "reason": part.reason} for part in placed.unmapped
            ],
            "redone": None if placed.redone is None else list(placed.redone),
        }


@dataclass(frozen=True)
class Undetermined:
    """A change of which it is not known whether the release has it, and which alters the answer; `given` are the
    unknown changes that it requires, taken as there on both sides."""

    change: str
    given: tuple[str, ...]
    if_yes: Mapping[str, Any]
    if_no: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return it in the form that `plan --json` prints."""
        row = {"change": self.change, "if_yes": dict(self.if_yes), "if_no": dict(self.if_no)}
        return {**row, "given": list(self.given)} if self.given else row


@dataclass(frozen=True)
class Plan:
    """Plans of mappings on one kernel; `kernel` is what `Kernel.describe` says of it. `legends`: what the numbers of
    DMA maps and of guests are, in sentences. `changes`: the upstream changes that the answers can hang on."""

    kernel: Mapping[str, Any]
    mappings: tuple[MappingPlan, ...]
    undetermined: tuple[Undetermined, ...]
    legends: tuple[str, ...] = ()
    changes: frozenset[str] = frozenset()
    texts: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """What of its JSON is written already; plans that differ in where BARs lie share it."""

    def dumped(self) -> str:
        """Return `as_json` as text, without the braces."""
        texts = self.texts
        if not texts:
            undetermined = [row.as_json() for row in self.undetermined]
            texts |= {"kernel": json.dumps(dict(self.kernel)), "undetermined": json.dumps(undetermined)}
        mappings = ", ".join([mapping.dumped() for mapping in self.mappings])
        return f'"kernel": {texts["kernel"]}, "mappings": [{mappings}], "undetermined": {texts["undetermined"]}'

    def as_json(self) -> dict[str, Any]:
        """Return the document that `plan --json` prints, without its schema."""
        return {
            "kernel": dict(self.kernel),
            "mappings": [mapping.as_json() for mapping in self.mappings],
            "undetermined": [row.as_json() for row in self.undetermined],
        }
