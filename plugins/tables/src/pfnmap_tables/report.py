"""Real page tables as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pfnmap.contract.entry import Level
from pfnmap.contract.plan import LEAF_LEVELS
from pfnmap.kernel import Kernel
from pfnmap.plan import MappingPlan
from pfnmap.report.text import Table, Text
from pfnmap.sizes import format_size
from pfnmap_tables.compare import Compared, decoded

__all__ = ["render"]

_SHOWN: Final = 12


def render(found: Sequence[Compared], kernel: Kernel) -> list[Text | Table]:
    """Return what `pfnmap tables` prints below its heading, in order."""
    parts: list[Text | Table] = []
    for one in found:
        vma = one.vma
        size = format_size(vma.end - vma.start)
        whose = f"{one.device or 'device not known'} BAR {'?' if one.bar is None else one.bar}"
        parts.append(Text(f"\nProcess {vma.pid}: {vma.start:#x}, {size} of {whose}", "bold underline"))
        rows = [
            [
                Text(f"{run.va:#x}"),
                Text(f"{run.count:,}x{format_size(run.length // run.count)}"),
                Text(f"{run.entry:#x}"),
                Text(_words(kernel, run.level, run.entry)),
            ]
            for run in one.runs[:_SHOWN]
        ]
        if rows:
            parts.append(Table(("VA", "leaves", "first entry", ""), rows, indent=2))
        if len(one.runs) > _SHOWN:
            parts.append(Text(f"and {len(one.runs) - _SHOWN} runs more, which --json has", "dim", 2))
        parts.append(Text(f"page tables: {format_size(one.table_bytes)}", "", 2))
        if one.unreadable:
            parts.append(Text(f"{one.unreadable} tables could not be read", "bold red", 2))
        if one.unstable:
            parts.append(Text("it changed while it was read", "bold yellow", 2))
        if one.plan is None:
            parts.append(Text("no plan: nothing tells which BAR it is", "dim", 2))
        else:
            parts += [Text(text, "", 2) for text in _planned(one.plan)]
            if not one.differs:
                parts.append(Text("as planned", "green", 2))
        for row in one.differs[:_SHOWN]:
            where = f"{row.va:#x}+{format_size(row.length)}"
            have, planned = (_leaf(level, one.plan) for level in (row.kernel, row.plan))
            parts.append(Text(f"{where}: {have}, planned {planned}: {row.reason}", "yellow", 2))
        if len(one.differs) > _SHOWN:
            parts.append(Text(f"and {len(one.differs) - _SHOWN} differences more", "dim", 2))
    return parts or [Text("\nNo process maps a BAR", "bold")]


def _planned(plan: MappingPlan) -> Iterator[str]:
    """Say what is planned, and why no larger leaves are, of each kind of run once."""
    counts, sizes = plan.costs.counts, plan.sizes
    leaves = " + ".join(f"{counts[one]:,}x{format_size(sizes[one])}" for one in reversed(LEAF_LEVELS) if counts[one])
    yield f"planned: {leaves}"
    said = {(row.level, row.reason): row.detail for row in plan.blocked if row.reason != "too_small"}
    yield from (f"not {format_size(sizes[level])}: {detail}" for (level, _), detail in said.items())


def _leaf(level: str, plan: MappingPlan | None) -> str:
    size = (plan.sizes if plan else {}).get(level)  # type: ignore[call-overload]
    return level if size is None else f"{format_size(size)} leaves"


def _words(kernel: Kernel, level: Level, entry: int) -> str:
    said = decoded(kernel, level, entry)
    return " ".join([*(name for name, value in said.items() if value is True), said.get("cache_mode", "")]).rstrip()
