"""The address map of a BAR as SVG, at three zooms: the whole BAR, around each edge, and one page table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby, pairwise
from typing import Final
from xml.etree.ElementTree import Element

from pfnmap.report.bar_map import BarMap, Stretch, columns_of
from pfnmap.sizes import format_size
from pfnmap_report.markup import element

__all__ = ["edges", "legend", "one_table", "sentence", "whole"]

NAMES: Final[Mapping[str, str]] = {
    "pud": "PUD leaves",
    "pmd": "PMD leaves",
    "pte": "PTEs",
    "hole": "left out by the VMM",
    "unmapped": "not mapped",
}
_UNITS: Final = 960
"""The width of a picture in its own units."""
_COLUMNS: Final = 160
_HEIGHT: Final = 34
_EDGES: Final = 8
"""Edges of one BAR that are drawn."""
_AROUND: Final = 4
"""How many leaves of the larger size are drawn on either side of an edge."""
_DRAWN_LEAVES: Final = 64
"""Leaves of one stretch that are drawn one by one in a picture."""
_CELLS: Final = (64, 8)
"""Columns and rows of a page table's picture."""
_SQUARE: Final = _UNITS // _CELLS[0]


def whole(one: BarMap) -> Element:
    """Return the picture of the whole BAR: each stretch has a width in proportion, but a few units at least."""
    columns = columns_of(one.stretches, _COLUMNS)
    parts, at = [], 0
    for stretch, count in zip(one.stretches, columns, strict=True):
        if count:
            width = count * _UNITS // _COLUMNS
            parts.append(_stretch(stretch, at, width))
            at += width
    return _picture(parts, f"BAR {one.bar}, {format_size(one.size)}, {one.policy}")


def edges(one: BarMap) -> Iterator[tuple[str, Element]]:
    """Yield a heading and a picture for each place where one kind of stretch ends and another begins, to scale, the
    first eight of them."""
    for left, right in list(pairwise(one.stretches))[:_EDGES]:
        reach = _AROUND * max(_leaf(left), _leaf(right))
        start, end = max(left.offset, left.end - reach), min(right.end, left.end + reach)
        scale = _UNITS / (end - start)
        parts, borders = [], ""
        for stretch in (left, right):
            low, high = max(start, stretch.offset), min(end, stretch.end)
            x, width = (low - start) * scale, (high - low) * scale
            parts.append(_stretch(stretch, x, width))
            borders += _borders(stretch, low, high, start, scale)
        parts.append(element("path", d=borders, class_="border"))
        va = f", VA {right.va:#x}" if right.va is not None else ""
        title = f"at +{left.end:#x}{va}: {_what(left)} before, {_what(right)} behind"
        yield title, _picture(parts, title)


def one_table(one: BarMap, sizes: Mapping[str, int], page_size: int) -> tuple[str, Element] | None:
    """Return heading and picture of the page table that holds the first leaf of the smallest level, or None where
    nothing is mapped. Slots are drawn in rows, several together where a table has more than 512.

    `sizes`: what a leaf of each level maps. The table has as many slots as its level's leaves fit into the next
    larger one, at the top as many words as a page holds (inference for an architecture whose tables are no page).
    """
    mapped = [stretch for stretch in one.stretches if stretch.va is not None]
    if not mapped:
        return None
    first = min(mapped, key=_leaf)
    level, leaf = first.kind, sizes[first.kind]
    above = {"pte": "pmd", "pmd": "pud"}.get(level)
    slots = sizes[above] // leaf if above else page_size // 8
    assert first.va is not None
    start = first.va - first.va % (slots * leaf)
    across, down = _CELLS
    each = max(1, slots // (across * down))
    squares = [_slot(mapped, low, low + each * leaf, level) for low in range(start, start + slots * leaf, each * leaf)]
    parts, index = [], 0
    for (row, kind), same in groupby(enumerate(squares), key=lambda at: (at[0] // across, at[1][0])):
        count = len(list(same))
        x, y = index % across * _SQUARE, row * _SQUARE
        parts.append(element("rect", x=x, y=y, width=count * _SQUARE, height=_SQUARE, class_=kind))
        index += count
    height = _SQUARE * -(-len(squares) // across)
    lines = [f"M{x} 0V{height}" for x in range(0, _UNITS + 1, _SQUARE)]
    lines += [f"M0 {y}H{_UNITS}" for y in range(0, height + 1, _SQUARE)]
    parts.append(element("path", d="".join(lines), class_="border"))
    used, together = sum(count for _, count in squares), f", {each} slots a square" if each > 1 else ""
    title = f"the {level.upper()} table of {start:#x}: {used:,} of {slots:,} slots hold leaves of this BAR{together}"
    return title, _picture(parts, title, height)


def _slot(mapped: list[Stretch], low: int, high: int, level: str) -> tuple[str, int]:
    """What a square of a table is, and how many leaves of the level it stands for."""
    count, kind = 0, "empty"
    for stretch in mapped:
        assert stretch.va is not None
        overlap = min(high, stretch.va + stretch.length) - max(low, stretch.va)
        if overlap > 0:
            if stretch.kind == level:
                kind = level
                count += overlap // _leaf(stretch)
            elif kind == "empty":
                kind = "below"
    return kind, count


def legend(maps: list[BarMap]) -> Element:
    """Return what the marks mean, those that occur."""
    kinds = {stretch.kind for one in maps for stretch in one.stretches}
    items = []
    for kind, text in NAMES.items():
        if kind in kinds:
            mark = element("rect", width=26, height=14, class_=kind)
            swatch = element("svg", mark, viewBox="0 0 26 14", width=26, height=14, aria_hidden="true")
            items.append(element("li", swatch, f" {text}"))
    return element("ul", *items, class_="legend")


def _picture(parts: list[Element], title: str, height: int = _HEIGHT) -> Element:
    box = f"0 0 {_UNITS} {height}"
    return element("svg", *parts, viewBox=box, role="group", aria_label=title, preserveAspectRatio="none", class_="map")


def _stretch(stretch: Stretch, x: float, width: float) -> Element:
    """A stretch that says what it is on hover and on keyboard focus."""
    said = sentence(stretch)
    mark = element("rect", x=f"{x:.2f}", width=f"{max(width, 1):.2f}", height=_HEIGHT, class_=stretch.kind)
    attributes = {"data-why": said, "aria-label": said, "role": "img", "tabindex": "0", "class": "stretch"}
    made = element("g", element("title", said), mark)
    for name, value in attributes.items():
        made.set(name, value)
    return made


def _borders(stretch: Stretch, low: int, high: int, start: int, scale: float) -> str:
    """The borders of single leaves as a path, where they are few enough to be told apart."""
    leaf = _leaf(stretch)
    if not stretch.count or (high - low) // leaf > _DRAWN_LEAVES:
        return ""
    first = stretch.offset + -(-(low - stretch.offset) // leaf) * leaf
    return "".join(f"M{(at - start) * scale:.1f} 0V{_HEIGHT}" for at in range(first, high + 1, leaf))


def sentence(stretch: Stretch) -> str:
    """Return what a stretch is, in words."""
    where = f"offset {stretch.offset:#x}-{stretch.end:#x}"
    if stretch.va is not None:
        where += f", VA {stretch.va:#x}"
    return f"{_what(stretch)}, {where}" + (f": {stretch.reason}" if stretch.reason else "")


def _what(stretch: Stretch) -> str:
    if not stretch.count:
        return f"{format_size(stretch.length)} {NAMES[stretch.kind]}"
    return f"{stretch.count:,} x {format_size(_leaf(stretch))}"


def _leaf(stretch: Stretch) -> int:
    """Bytes that a leaf maps; of what is not mapped a leaf counts as nothing."""
    return stretch.length // stretch.count if stretch.count else 1
