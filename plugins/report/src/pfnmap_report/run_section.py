"""What `run` answers: a slider over the steps, and of each what was asked, what came of it and the page tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from xml.etree.ElementTree import Element

from pfnmap.report.events import json_line
from pfnmap.sizes import format_size
from pfnmap_report.markup import Child, element, table, worded

__all__ = ["run_section"]

_APART: Final = frozenset({"op", "call", "result", "faults", "events", "messages", "page_tables", "findings"})
"""Results that have a place of their own."""


def run_section(document: Mapping[str, Any]) -> list[Element]:
    """Return the slider and the steps; those that failed an expectation or died are marked."""
    steps: Sequence[Mapping[str, Any]] = document["steps"]
    failed: dict[int, list[Mapping[str, Any]]] = {}
    for one in document.get("failed", ()):
        failed.setdefault(one["step"], []).append(one)
    slider = element(
        "input", type="range", id="step", min=0, max=max(len(steps) - 1, 0), value=0, aria_describedby="step-name"
    )
    control = element(
        "p", element("label", "Step ", for_="step"), slider, element("output", "", id="step-name", for_="step")
    )
    found, tables = [], None
    for number, step in enumerate(steps):
        tables = step.get("page_tables", tables)
        found.append(_step(number, step, failed.get(number, []), tables))
    if refused := document.get("refused"):
        found.append(element("p", f"Refused at step {refused['step']}, {refused['op']}: {refused['reason']}"))
    if tables is None and document.get("page_tables"):
        found.append(element("section", element("h3", "Page tables at the end"), _tables(document["page_tables"])))
    return [control, *found]


def _step(number: int, step: Mapping[str, Any], failed: Sequence[Mapping[str, Any]], tables: Any) -> Element:
    ok = step["result"] == "ok"
    title: list[Child] = [f"{number} {step['op']} ", element("code", step.get("call", "")), " "]
    title.append(element("span", step["result"], class_="ok" if ok else "bad"))
    parts: list[Element] = [element("h3", *title)]
    for one in failed:
        said = f"{one['field']}: expected {worded(one['expected'])}, got {worded(one['got'])}"
        parts.append(element("p", said, class_="bad"))
    if step.get("findings"):
        parts.append(element("p", f"A kernel's finding: {', '.join(step['findings'])}", class_="bad"))
    if faults := step.get("faults"):
        lines: list[tuple[Child, ...]] = [
            (f["va"], str(f["order"]), f["ret"], "write" if f.get("write") else "read") for f in faults
        ]
        parts.append(table(("fault at", "order", "answer", "access"), lines))
    lines = [(name, element("code", worded(value))) for name, value in step.items() if name not in _APART]
    parts.append(table(("result", "value"), lines))
    for name in ("messages", "events"):
        if step.get(name):
            text = "\n".join(json_line(one) if isinstance(one, dict) else str(one) for one in step[name])
            parts.append(
                element("details", element("summary", name), element("pre", text, tabindex="0"), open=ok is False)
            )
    if tables is not None:
        parts.append(element("h4", "Page tables after it"))
        parts.append(_tables(tables) if tables else element("p", "none"))
    return element("section", *parts, class_="step", id=f"step-{number}")


def _tables(rows: Sequence[Mapping[str, Any]]) -> Element:
    lines: list[tuple[Child, ...]] = []
    for row in rows:
        what = "table" if row["table"] else f"{row['count']:,} x {format_size(row['size'])}"
        lines.append((row["by"], row["level"], row["va"], element("code", row["value"]), what))
    return table(("process", "level", "VA", "entry", "what it is"), lines)
