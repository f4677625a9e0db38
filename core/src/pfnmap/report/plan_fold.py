"""A plan of many devices made short: identical devices once, or a line for each and a total."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from pfnmap.report.text import Text
from pfnmap.sizes import format_size, rounded_size

if TYPE_CHECKING:
    from pfnmap.plan import LeafLevel, MappingPlan, Plan

__all__ = ["folded", "summary"]

_LEVELS: tuple[LeafLevel, ...] = ("pud", "pmd", "pte")


def folded(plan: Plan, names: Mapping[str, str]) -> tuple[Plan, Mapping[str, str]]:
    """Return the plan with one of the devices that are alike, and the names of devices with how many there are.

    Alike are devices of one name whose mappings cost the same, wherever they lie.
    """
    alike: dict[object, list[str]] = {}
    for device, mappings in _by_device(plan):
        alike.setdefault(_likeness(mappings, names.get(device, "")), []).append(device)
    first = {devices[0]: devices for devices in alike.values()}
    kept = [n for n, m in enumerate(plan.mappings) if m.device is None or m.device in first]
    called = {**names}
    for device, devices in first.items():
        if len(devices) > 1:
            others = ", ".join(devices[1:])
            called[device] = f"{len(devices)} x {names.get(device) or 'such devices'} (also {others})"
    short = replace(
        plan,
        mappings=tuple(plan.mappings[n] for n in kept),
        undetermined=tuple(
            replace(row, if_yes=_some(row.if_yes, kept), if_no=_some(row.if_no, kept)) for row in plan.undetermined
        ),
    )
    return short, called


def _some(answer: Mapping[str, object], kept: Sequence[int]) -> Mapping[str, object]:
    mappings = answer["mappings"]
    assert isinstance(mappings, Sequence)
    return {**answer, "mappings": [mappings[n] for n in kept]}


def _by_device(plan: Plan) -> Iterable[tuple[str, list[MappingPlan]]]:
    for device, mappings in groupby(plan.mappings, key=lambda m: m.device):
        if device is not None:
            yield device, list(mappings)


def _likeness(mappings: Sequence[MappingPlan], name: str) -> object:
    rows = tuple(
        (m.bar, m.bar_size, m.policy, m.offset, m.length, m.request.driver, str(m.costs), m.warnings, m.notes)
        for m in mappings
    )
    return name, rows


def summary(plan: Plan, names: Mapping[str, str]) -> list[Text]:
    """Return a line for each device, those that are alike in one, and a total."""
    lines: dict[tuple[str, str], int] = {}
    for device, mappings in groupby(plan.mappings, key=lambda m: m.device):
        line = names.get(device or "") or device or "BARs", _by_policy(list(mappings))
        lines[line] = lines.get(line, 0) + 1
    parts = [Text(f"{f'{count} x ' if count > 1 else ''}{called}  {said}") for (called, said), count in lines.items()]
    return [*parts, Text(f"total  {_by_policy(plan.mappings)}", "bold")]


def _by_policy(mappings: Sequence[MappingPlan]) -> str:
    policies = dict.fromkeys(m.policy for m in mappings)
    return "; ".join(f"{p or 'as given'}: {_sum([m for m in mappings if m.policy == p])}" for p in policies)


def _sum(mappings: Sequence[MappingPlan]) -> str:
    leaves: dict[tuple[LeafLevel, int], int] = {}
    for mapping in mappings:
        for level in _LEVELS:
            key = level, mapping.sizes[level]
            leaves[key] = leaves.get(key, 0) + mapping.costs.counts[level]
    shown = " + ".join(f"{n:,}x{format_size(size)}" for (_, size), n in sorted(leaves.items(), key=_largest) if n)
    faults = sum(m.costs.driver_calls for m in mappings)
    tables = sum(m.costs.table_bytes for m in mappings)
    return f"{shown or 'nothing mapped'}, {faults:,} faults, {rounded_size(tables)} of page tables"


def _largest(row: tuple[tuple[LeafLevel, int], int]) -> int:
    return -row[0][1]
