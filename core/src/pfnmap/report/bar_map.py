"""The map of a BAR: which level each stretch of it is mapped at, from one end to the other.

`bar_maps` takes the rows of a plan's JSON, so that what another program or another day answered can be drawn, too;
`render` draws them for a terminal. ASCII marks alone say the level: colours only repeat it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pfnmap.report.plan_table import LEVEL_STYLE
from pfnmap.report.text import Table, Text
from pfnmap.sizes import format_size

__all__ = ["BarMap", "Stretch", "bar_maps", "columns_of", "compared", "covering", "render"]

MARKS: Final[Mapping[str, str]] = {"pud": "#", "pmd": "=", "pte": "-", "hole": " ", "unmapped": "."}
STYLES: Final[Mapping[str, str]] = {**LEVEL_STYLE, "hole": "", "unmapped": "red"}
_WIDTH: Final = 56
"""Columns of the picture: with its frame and indent it fits into 60."""
_INDENT: Final = 2
_SHOWN: Final = 256
"""Stretches of a BAR that the table below its picture has."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a BAR, in bytes from the BAR's start, that is of one kind.

    `kind` is the level of its leaves ("pud", "pmd", "pte"), "hole" for what the VMM leaves out and "unmapped" for what
    cannot be mapped or was not asked for. `va` is None where nothing is mapped. `reason` says why it is no larger, or
    why it is not mapped.
    """

    offset: int
    length: int
    kind: str
    va: int | None = None
    count: int = 0
    reason: str = ""

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class BarMap:
    """One BAR as one policy maps it: stretches in ascending order that cover all of it.

    `key` tells which BAR of which device and which policy it is; two answers about the same thing have the same.
    """

    device: str | None
    bar: int
    policy: str
    size: int
    stretches: tuple[Stretch, ...]

    @property
    def key(self) -> tuple[str | None, int]:
        """Which BAR it is."""
        return (self.device, self.bar)


def bar_maps(rows: Sequence[Mapping[str, Any]]) -> list[BarMap]:
    """Return the maps of the BARs that the rows of ``"mappings"`` in a plan's JSON are about, in their order.

    Rows of several areas of one BAR, in ascending order, become one map; another row of what a map has already is of
    another device that nobody can tell from the first. A row that says nothing of its BAR's size is the whole of it.
    """
    groups: list[tuple[tuple[Any, ...], list[Mapping[str, Any]]]] = []
    for row in rows:
        key = (row.get("device"), row["bar"], row.get("policy"), row.get("pid"))
        if groups and groups[-1][0] == key and _start(row) >= _start(last := groups[-1][1][-1]) + last["length"]:
            groups[-1][1].append(row)
        else:
            groups.append((key, [row]))
    return [_bar_map(key, group) for key, group in groups]


def _start(row: Mapping[str, Any]) -> int:
    """Where a row's part of the BAR begins."""
    start: int = (row.get("area") or {}).get("offset", row.get("offset", 0))
    return start


def _bar_map(key: tuple[Any, ...], rows: Sequence[Mapping[str, Any]]) -> BarMap:
    first = rows[0]
    found: list[Stretch] = []
    for row in rows:
        found += _mapped(row)
    for part in first.get("unmapped") or ():
        found.append(Stretch(part["offset"], part["length"], "hole", reason=part["reason"]))
    found.sort(key=lambda stretch: (stretch.offset, stretch.kind))
    size = first.get("bar_size") or max((stretch.end for stretch in found), default=first["length"])
    return BarMap(key[0], key[1], first.get("policy") or "as given", size, tuple(covering(found, size)))


def _mapped(row: Mapping[str, Any]) -> Iterator[Stretch]:
    """The runs of a row, or why it has none."""
    start = _start(row)
    blocked = {line["va"]: line for line in reversed(row.get("blocked") or ())}
    if not row["runs"]:
        reason = next((line["detail"] for line in blocked.values()), "")
        yield Stretch(start, row["length"], "unmapped", reason=reason)
    base = int(row["va"], 16) if row["runs"] else 0
    for run in row["runs"]:
        va = int(run["va"], 16)
        line = blocked.get(run["va"])
        reason = f"not {format_size(row['sizes'][line['level']])}: {line['detail']}" if line else ""
        yield Stretch(start + va - base, run["length"], run["level"], va, run["count"], reason)


def covering(found: Iterable[Stretch], size: int) -> Iterator[Stretch]:
    """Yield stretches in ascending order, and "unmapped" ones for what lies between them and up to `size` bytes."""
    at = 0
    for stretch in found:
        if stretch.offset > at:
            yield Stretch(at, stretch.offset - at, "unmapped")
        if stretch.end > at:
            yield stretch
            at = stretch.end
    if at < size:
        yield Stretch(at, size - at, "unmapped")


def columns_of(stretches: Sequence[Stretch], width: int) -> list[int]:
    """Return how many of `width` columns each stretch gets: in proportion, but at least one; none where there are more
    stretches than columns and it is among the smaller ones."""
    if len(stretches) >= width:
        largest = set(sorted(range(len(stretches)), key=lambda i: (-stretches[i].length, i))[:width])
        return [int(i in largest) for i in range(len(stretches))]
    total = sum(stretch.length for stretch in stretches)
    spare = width - len(stretches)
    columns = [1 + spare * stretch.length // total for stretch in stretches]
    largest_one = max(range(len(stretches)), key=lambda i: stretches[i].length)
    columns[largest_one] += width - sum(columns)
    return columns


def render(maps: Sequence[BarMap], labels: Sequence[str] = ()) -> list[Text | Table]:
    """Return the pictures for a terminal, each followed by a table of its stretches.

    `labels`: what stands beside each policy's name, such as the kernel's release where two sides are compared.
    """
    parts: list[Text | Table] = []
    last: tuple[str | None, int] | None = None
    for one, label in zip(maps, labels or [""] * len(maps), strict=True):
        if one.key != last:
            whose = f" of {one.device}" if one.device else ""
            parts.append(Text(f"\nBAR {one.bar}{whose}, {format_size(one.size)}", "bold"))
            last = one.key
        parts.append(Text(one.policy + (f", {label}" if label else ""), "", _INDENT))
        parts.append(_picture(one))
        parts.append(_stretches(one))
    if maps:
        kinds = {stretch.kind for one in maps for stretch in one.stretches}
        named = {"pud": "PUD leaves", "pmd": "PMD leaves", "pte": "PTEs", "hole": "left out", "unmapped": "not mapped"}
        legend = "  ".join(f"'{MARKS[kind]}' {text}" for kind, text in named.items() if kind in kinds)
        parts.append(Text(f"\n{legend}. Each stretch has one column at least; the rest is to scale.", "dim"))
    return parts


def _picture(one: BarMap) -> Text:
    line = Text("|", "dim", _INDENT)
    for stretch, columns in zip(one.stretches, columns_of(one.stretches, _WIDTH), strict=True):
        line.append(MARKS[stretch.kind] * columns, STYLES[stretch.kind])
    return line.append("|", "dim")


def _stretches(one: BarMap) -> Table:
    rows = []
    for stretch in one.stretches[:_SHOWN]:
        what = "not mapped"
        if stretch.count:
            what = f"{stretch.count:,}x{format_size(stretch.length // stretch.count)}"
        cells = (
            (MARKS[stretch.kind], STYLES[stretch.kind]),
            (f"+{stretch.offset:#x}", ""),
            (f"{stretch.va:#x}" if stretch.va is not None else "", ""),
            (what, ""),
            (stretch.reason, "dim"),
        )
        rows.append([Text(text, style) for text, style in cells])
    if (more := len(one.stretches) - _SHOWN) > 0:
        rows.append([Text(""), Text(f"and {more:,} more"), Text(""), Text(""), Text("")])
    return Table(("", "offset", "VA", "leaves", "why no larger"), rows, ruled=False, indent=_INDENT)


def compared(sides: Sequence[tuple[str, Sequence[BarMap]]]) -> tuple[list[BarMap], list[str]]:
    """Return the maps of several sides and the labels of the sides beside them: those of one BAR and, within it, of
    one placement below one another."""
    both: list[tuple[tuple[int, int], BarMap, str]] = []
    order: dict[tuple[str | None, int], int] = {}
    for label, maps in sides:
        seen: Counter[tuple[str | None, int]] = Counter()
        for one in maps:
            both.append(((order.setdefault(one.key, len(order)), seen[one.key]), one, label))
            seen[one.key] += 1
    both.sort(key=lambda found: found[0])
    return [one for _, one, _ in both], [label for _, _, label in both]
