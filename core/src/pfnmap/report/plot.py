"""Plots as SVG: one panel a cost, one line a placement, over the points of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, log10
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

from pfnmap.report.text import Table, Text, printable
from pfnmap.sizes import format_size, rounded_size
from pfnmap.sweep import Point

__all__ = ["render_sweep", "sweep_svg"]

_PANELS: Final = (
    ("leaves", "leaves"),
    ("driver_calls", "calls of the driver's fault handler, each page touched once"),
    ("dma_walks", "walks of a DMA map, nothing mapped before"),
)
_COLOURS: Final = ("#0969da", "#b35900", "#1a7f37", "#8250df", "#a40e26", "#57606a")
_DASHES: Final = ("", "8 4", "2 3", "12 3 2 3", "4 8", "1 6")
_WIDTH: Final = 960
_LEFT: Final = 90
_RIGHT: Final = 20
_HEIGHT: Final = 170
_GAP: Final = 60
_X: Final = {"release": "release", "va": "VA is so far from an address that is congruent to the BAR", "thp": "THP"}


def sweep_svg(kind: str, title: str, points: Sequence[Point]) -> str:
    """Return the picture of a sweep: logarithmic, from 1 to the largest value of each panel."""
    names = list(dict.fromkeys(point.at for point in points))
    placements = list(dict.fromkeys(point.placement for point in points))
    panels = [(key, text) for key, text in _PANELS if any(getattr(point, key) is not None for point in points)]
    top = 70 + 18 * len(placements)
    height = top + len(panels) * (_HEIGHT + _GAP) + 30
    root = Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {_WIDTH} {height}")
    root.set("font-family", "sans-serif")
    root.set("font-size", "13")
    SubElement(root, "title").text = printable(title)
    SubElement(root, "rect", width=str(_WIDTH), height=str(height), fill="#ffffff")
    _text(root, 20, 28, title, size=17)
    for number, placement in enumerate(placements):
        y = 52 + 18 * number
        _line(root, 20, y - 4, 60, y - 4, number)
        _text(root, 70, y, placement)
    for number, (key, text) in enumerate(panels):
        y = top + number * (_HEIGHT + _GAP)
        lines = [(placement, _values(points, names, placement, key)) for placement in placements]
        _panel(root, y, text, names, lines, kind)
        if key == "leaves":
            wrong = [(names.index(p.at), p) for p in points if p.warnings]
            for index, point in wrong:
                x = _LEFT + (_WIDTH - _LEFT - _RIGHT) / len(names) * (index + 0.5)
                said = f"{point.placement}, {point.at}: {point.warnings[0]}"
                made = _text(root, x, y + 14, "!", anchor="middle", size=16, colour="#a40e26")
                SubElement(made, "title").text = printable(said)
    _text(root, _LEFT, height - 12, _X[kind])
    return tostring(root, encoding="unicode") + "\n"


def _values(points: Sequence[Point], names: Sequence[str], placement: str, key: str) -> list[int | None]:
    found = {point.at: getattr(point, key) for point in points if point.placement == placement}
    return [found.get(name) for name in names]


def _panel(
    root: Element, y: int, title: str, names: Sequence[str], lines: Sequence[tuple[str, list[int | None]]], kind: str
) -> None:
    largest = max((value or 1 for _, values in lines for value in values), default=1)
    decades = max(1, ceil(log10(max(largest, 1))))
    step = (_WIDTH - _LEFT - _RIGHT) / max(len(names), 1)
    _text(root, _LEFT, y - 8, title)
    for power in range(decades + 1):
        level = y + _HEIGHT - _HEIGHT * power / decades
        mark = SubElement(root, "line", x1=str(_LEFT), x2=str(_WIDTH - _RIGHT), y1=f"{level:.1f}", y2=f"{level:.1f}")
        mark.set("stroke", "#d0d7de")
        _text(root, _LEFT - 8, level + 4, f"{10**power:,}", anchor="end")
    for column, name in enumerate(names):
        label = format_size(int(name, 16)) if kind == "va" and name != "0x0" else name.removeprefix("0x")
        _text(root, _LEFT + step * (column + 0.5), y + _HEIGHT + 18, label, anchor="middle", size=11)
    for number, (placement, values) in enumerate(lines):
        heights = [None if v is None else y + _HEIGHT - _HEIGHT * log10(max(v, 1)) / decades for v in values]
        for index, ((value, at), (_, after)) in enumerate(pairwise([*zip(values, heights, strict=True), (None, None)])):
            if at is None:
                continue
            x = _LEFT + step * index
            said = f"{placement}, {names[index]}: {value:,}"
            _line(root, x, at, x + step, at, number, said)
            if after is not None:
                _line(root, x + step, at, x + step, after, number)


def _line(root: Element, x1: float, y1: float, x2: float, y2: float, number: int, said: str = "") -> None:
    made = SubElement(root, "line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}")
    made.set("stroke", _COLOURS[number % len(_COLOURS)])
    made.set("stroke-width", "3")
    if dashes := _DASHES[number % len(_DASHES)]:
        made.set("stroke-dasharray", dashes)
    if said:
        SubElement(made, "title").text = printable(said)


def _text(
    root: Element, x: float, y: float, text: str, *, anchor: str = "start", size: int = 13, colour: str = "#1b1f24"
) -> Element:
    made = SubElement(root, "text", x=f"{x:.1f}", y=f"{y:.1f}", fill=colour)
    made.set("text-anchor", anchor)
    made.set("font-size", str(size))
    made.text = printable(text)
    return made


def render_sweep(kind: str, points: Sequence[Point]) -> Table:
    """Return the same as a table."""
    rows = [
        [
            point.at,
            point.placement,
            f"{point.leaves:,}",
            f"{point.driver_calls:,}",
            rounded_size(point.table_bytes),
            "-" if point.dma_walks is None else f"{point.dma_walks:,}",
            "; ".join(point.warnings),
        ]
        for point in points
    ]
    head = ({"va": "VA off by"}.get(kind, kind), "placement", "leaves", "faults", "tables", "DMA cold", "")
    return Table(head, [[Text(cell) for cell in row] for row in rows], head[2:6], ruled=False)
