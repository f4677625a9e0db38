"""What `plan` and `host` answer of BARs: for each its address maps, its costs, and why it is not mapped larger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from pfnmap.report.bar_map import BarMap, bar_maps
from pfnmap.sizes import format_size, rounded_size
from pfnmap_report.bar_svg import edges, legend, one_table, sentence, whole
from pfnmap_report.markup import Child, element, table

__all__ = ["mappings_sections", "undetermined_section"]

_COSTS = frozenset({"leaves", "faults", "page tables", "DMA walks, cold", "DMA walks, warm"})

Row = Mapping[str, Any]
Side = tuple[str, int, Sequence[Row]]
"""A side's name, its page size in bytes, and its rows."""


def mappings_sections(sides: Sequence[Side]) -> list[Element]:
    """Return a section for each BAR of each device; the same BAR of two sides stands side by side, and is marked where
    they differ."""
    drawn = [(name, page, _by_bar(rows)) for name, page, rows in sides]
    order = dict.fromkeys(key for _, _, bars in drawn for key in bars)
    sections: list[Element] = []
    device: Any = object()
    for key in order:
        if key[0] != device:
            device = key[0]
            sections.append(element("h2", _device_name(device, key[2])))
        sections.append(_bar(key, [(name, page, bars.get(key, [])) for name, page, bars in drawn]))
    maps = [one for _, _, bars in drawn for rows in bars.values() for one in bar_maps(rows)]
    return [legend(maps), *sections] if maps else [element("p", "No BAR is mapped.")]


def undetermined_section(unknown: Row, rows: Sequence[Row]) -> list[Element]:
    """Return what each of the rows would be with a change of which it is not known whether the kernel has it, and
    without. A host's rows, of which one may be of any of several devices, are not what was planned both ways."""
    with_it, without = unknown["if_yes"]["mappings"], unknown["if_no"]["mappings"]
    said = [
        f"BAR {row['bar']}, {_placement(row)}: with it {_in_short({**row, **yes})}; without {_in_short({**row, **no})}"
        for row, yes, no in zip(rows if len(rows) == len(with_it) else (), with_it, without, strict=False)
        if yes != no
    ]
    given = f" (with {', '.join(unknown['given'])})" if unknown.get("given") else ""
    head = f"It is not known whether this kernel has {unknown['change']}{given}:"
    return [element("p", head, class_="bad"), element("ul", *(element("li", text) for text in said))]


def _in_short(row: Row) -> str:
    dma, calls = row.get("dma_map") or {}, row["driver_calls"]
    walks = " / ".join(f"{dma[when]['walks']:,}" for when in ("cold", "warm") if dma.get(when))
    faults = f"{calls:,} fault{'s' * (calls != 1)}"
    tables = f"{rounded_size(row['table_bytes'])} of page tables"
    return ", ".join([_leaves(row), faults, tables, *([f"{walks} DMA walks"] if walks else [])])


def _device_name(device: str | None, pid: int | None) -> str:
    return (device or "BARs as given") + (f", process {pid}" if pid is not None else "")


def _by_bar(rows: Sequence[Row]) -> dict[tuple[Any, int, Any], list[Row]]:
    found: dict[tuple[Any, int, Any], list[Row]] = {}
    for row in rows:
        found.setdefault((row.get("device"), row["bar"], row.get("pid")), []).append(row)
    return found


def _bar(key: tuple[Any, int, Any], sides: Sequence[tuple[str, int, list[Row]]]) -> Element:
    first = next(rows[0] for _, _, rows in sides if rows)
    size = first.get("bar_size") or first["length"]
    at = f" at {int(first['phys'], 16) - first.get('offset', 0):#x}" if first.get("phys") else ""
    heading: list[Child] = [f"BAR {key[1]}: {format_size(size)}{at}"]
    if len(sides) > 1:
        levels = [[_leaves(row) for row in rows] for _, _, rows in sides]
        same = all(one == levels[0] for one in levels)
        heading += [" ", element("span", "no difference" if same else "differs", class_="same" if same else "differs")]
    columns = []
    for name, page, rows in sides:
        parts = [element("h4", name)] if name else []
        parts += [part for one in bar_maps(rows) for part in _map(one, rows[0]["sizes"], page)]
        parts.append(_costs(rows))
        columns.append(element("div", *parts, class_="side"))
    return element("section", element("h3", *heading), element("div", *columns, class_="sides"), class_="bar")


def _map(one: BarMap, sizes: Mapping[str, int], page_size: int) -> list[Element]:
    parts = [
        element("p", one.policy, class_="policy"),
        whole(one),
        element("p", "Point at a stretch, or move to it with the Tab key.", class_="why", aria_live="polite"),
    ]
    closer: list[Element] = []
    for title, picture in edges(one):
        closer += [element("p", title), picture]
    held = one_table(one, sizes, page_size)
    if held:
        closer += [element("p", held[0]), held[1]]
    if closer:
        parts.append(element("details", element("summary", "Around each edge, and one page table"), *closer))
    lines = [element("li", sentence(stretch)) for stretch in one.stretches]
    parts.append(element("ul", *lines, class_="stretches"))
    return parts


def _placement(row: Row) -> str:
    area = row.get("area")
    where = f" +{area['offset']:#x}" if area and area["length"] != row.get("bar_size") else ""
    return (row.get("policy") or "as given") + where


def _leaves(row: Row) -> str:
    counts = row["counts"]
    found = [f"{counts[level]:,} x {format_size(row['sizes'][level])}" for level in counts if counts[level]]
    return " + ".join(found) or "none"


def _costs(rows: Sequence[Row]) -> Element:
    head = ("placement", "VA", "leaves", "faults", "page tables", "DMA walks, cold", "DMA walks, warm")
    lines: list[tuple[Child, ...]] = []
    for row in rows:
        dma = row.get("dma_map") or {}
        cold, warm = (f"{dma[when]['walks']:,}" if dma.get(when) else "-" for when in ("cold", "warm"))
        costs = (f"{row['driver_calls']:,}", rounded_size(row["table_bytes"]), cold, warm)
        lines.append((_placement(row), row["va"] or "-", _leaves(row), *costs))
    said = dict.fromkeys(
        text for row in rows for text in (*row.get("warnings", ()), *row.get("notes", ()), *_found(row))
    )
    notes = element("ul", *(element("li", text) for text in said)) if said else None
    made = table(head, lines, _COSTS)
    return element("div", made, *([notes] if notes is not None else []))


def _found(row: Row) -> Iterator[str]:
    """What a host tells of a mapping beside its plan."""
    if row.get("candidates"):
        yield f"it is one of {', '.join(row['candidates'])}: the host does not tell which"
    if vmpte := row.get("vmpte"):
        yield f"VmPTE of the process is {vmpte['kernel']}, by the plan {vmpte['plan']}"
    if row.get("fix"):
        yield f"cheapest fix: {row['fix']}"
