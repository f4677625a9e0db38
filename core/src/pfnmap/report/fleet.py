"""A fleet's summary as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pfnmap.report.text import Table, Text

if TYPE_CHECKING:
    from pfnmap.fleet import Fleet

__all__ = ["render_fleet"]

_SHOWN: Final = 8


def render_fleet(fleet: Fleet) -> list[Text | Table]:
    """Return what `pfnmap fleet` prints, in order."""
    said = fleet.as_json()
    broken = f", {fleet.broken:,} lines broken" if fleet.broken else ""
    of = f" of {fleet.devices:,} devices" if fleet.devices else ""  # BARs of a --bar are of none
    parts: list[Text | Table] = [Text(f"{fleet.hosts:,} hosts, {sum(fleet.bars.values()):,} BARs{of}{broken}", "bold")]
    levels = [(level, count) for level, count in said["bars"].items() if count or level != "none"]
    parts += _table("\nBARs by the level that maps most of them", ("level", "BARs"), levels)
    parts += _table(
        "\nWhat stops the next level", ("reason", "BARs"), [(r["reason"], r["count"]) for r in said["reasons"]]
    )
    fixes = [(r["change"], r["hosts"]) for r in said["fixes"]]
    if fleet.advised:
        parts.append(Text(f"\nSomething helps {fleet.helped:,} of {fleet.advised:,} hosts", "bold"))
        parts += _table("", ("fix", "hosts"), fixes)
    else:
        parts.append(Text("\nThe lines do not say what would help: plan --batch --advise, or host --batch", "dim"))
    if fleet.contradicted:
        parts.append(Text(f"\nVmPTE contradicts the plan on {fleet.contradicted:,} hosts", "bold red"))
    parts += _table("\nWhy lines are broken", ("error", "lines"), [(r["error"], r["count"]) for r in said["errors"]])
    return parts


def _table(title: str, columns: tuple[str, str], rows: list[tuple[str, int]]) -> list[Text | Table]:
    if not rows:
        return []
    cells = [[Text(word), Text(f"{count:,}")] for word, count in rows[:_SHOWN]]
    parts: list[Text | Table] = [Text(title, "bold")] if title else []
    parts.append(Table(columns, cells, columns[1:], indent=2))
    if len(rows) > _SHOWN:
        parts.append(Text(f"and {len(rows) - _SHOWN} more, which --json has", "dim", 2))
    return parts
