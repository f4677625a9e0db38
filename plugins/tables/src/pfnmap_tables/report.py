"""Real page tables as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pfnmap.kernel import Kernel
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
            parts.append(Text("no plan: nothing that is mapped tells which BAR it is", "dim", 2))
        elif not one.differs:
            parts.append(Text("as planned", "green", 2))
        for row in one.differs[:_SHOWN]:
            where = f"{row.va:#x}+{format_size(row.length)}"
            parts.append(Text(f"{where}: {row.kernel}, planned {row.plan}: {row.reason}", "yellow", 2))
        if len(one.differs) > _SHOWN:
            parts.append(Text(f"and {len(one.differs) - _SHOWN} differences more", "dim", 2))
    return parts or [Text("\nNo process maps a BAR", "bold")]


def _words(kernel: Kernel, level: str, entry: int) -> str:
    said = decoded(kernel, level, entry)
    return " ".join(name for name, value in said.items() if value is True)
