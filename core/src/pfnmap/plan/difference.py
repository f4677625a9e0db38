"""Two plans of the same BARs side by side: in what they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from pfnmap.contract.plan import LEAF_LEVELS, LeafLevel
from pfnmap.plan.document import MappingPlan, Plan
from pfnmap.records import dataclass

__all__ = ["Difference", "MappingDifference", "Sum", "difference"]

_KERNEL = ("arch", "release", "config_source", "page_size", "thp", "cpu")

_Key: TypeAlias = tuple[str | None, int, int, str | None]


@dataclass(frozen=True)
class Sum:
    """What all areas of a BAR that one policy places come to. `sizes`: bytes of a leaf by level; `dma_walks` are those
    of a cold map, None where nothing is mapped for DMA."""

    sizes: Mapping[LeafLevel, int]
    counts: Mapping[LeafLevel, int]
    mapped: int
    driver_calls: int
    table_bytes: int
    dma_walks: int | None

    @classmethod
    def of(cls, mappings: list[MappingPlan]) -> Sum:
        """Add up."""
        maps = [m.costs.dma_map for m in mappings]
        walks = [dma.cold_walks for dma in maps if dma is not None and dma.error is None]
        return cls(
            mappings[0].sizes,
            {level: sum(m.costs.counts[level] for m in mappings) for level in reversed(LEAF_LEVELS)},
            sum(m.length for m in mappings if m.runs),
            sum(m.costs.driver_calls for m in mappings),
            sum(m.costs.table_bytes for m in mappings),
            sum(walks) if walks else None,
        )


@dataclass(frozen=True)
class MappingDifference:
    """A BAR of which the two sides make something else, None where a side has nothing of it."""

    device: str | None
    bar: int
    offset: int
    policies: tuple[str | None, str | None]
    sides: tuple[Sum | None, Sum | None]

    def as_json(self) -> dict[str, Any]:
        """Return it in the form that `plan --against --json` prints: this side, then the other."""
        fields = ("counts", "mapped", "driver_calls", "table_bytes", "dma_walks")
        both = {name: [getattr(side, name) if side else None for side in self.sides] for name in fields}
        row = {"device": self.device, "bar": self.bar, "offset": self.offset, "policy": list(self.policies)}
        return {**row, **both}


@dataclass(frozen=True)
class Difference:
    """In what two plans differ, this side first. `kernel`: what the kernels are; `changes`: which of the upstream
    changes that either answer can hang on they have; `mappings`: what becomes of the BARs."""

    kernel: Mapping[str, tuple[Any, Any]]
    changes: Mapping[str, tuple[str, str]]
    mappings: tuple[MappingDifference, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it in the form that `plan --against --json` prints."""
        return {
            "kernel": {name: list(values) for name, values in self.kernel.items()},
            "changes": {change: list(states) for change, states in self.changes.items()},
            "mappings": [row.as_json() for row in self.mappings],
        }


def difference(this: Plan, other: Plan, vmm: str | None = None) -> Difference:
    """Return in what two plans differ. `vmm`: who places everything on the other side; None: the same as on this."""
    here, there = this.kernel, other.kernel
    changes = [change for change in here["changes"] if change in {*this.changes, *other.changes}]
    return Difference(
        {name: (here[name], there[name]) for name in _KERNEL if here[name] != there[name]},
        {
            change: (here["changes"][change], there["changes"][change])
            for change in changes
            if here["changes"][change] != there["changes"][change]
        },
        tuple(row for row in _rows(_by_bar(this), _by_bar(other), vmm) if row.sides[0] != row.sides[1]),
    )


def _by_bar(plan: Plan) -> dict[_Key, Sum]:
    grouped: dict[_Key, list[MappingPlan]] = {}
    for m in plan.mappings:
        grouped.setdefault((m.device, m.bar, m.request.offset, m.policy), []).append(m)
    return {key: Sum.of(mappings) for key, mappings in grouped.items()}


def _rows(this: Mapping[_Key, Sum], other: Mapping[_Key, Sum], vmm: str | None) -> Iterable[MappingDifference]:
    paired = set()
    for key, mine in this.items():
        policy = key[3]
        partner = (*key[:3], vmm or policy)
        paired.add(partner)
        yield MappingDifference(*key[:3], (policy, partner[3]), (mine, other.get(partner)))
    for key, theirs in other.items():
        if key not in paired:
            yield MappingDifference(*key[:3], (None, key[3]), (None, theirs))
