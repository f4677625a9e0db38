"""What `host`, `log` and `verify` answer beside mappings: facts and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from pfnmap_report.markup import Child, element, table, worded

__all__ = ["host_section", "log_section", "verify_section"]


def host_section(document: Mapping[str, Any]) -> list[Element]:
    """Return what is known of a host, and what is missing and would have told more."""
    parts = [element("h2", "The host"), facts(document["host"])]
    missing = [
        tuple(str(row.get(key, "")) for key in ("what", "why", "would_tell")) for row in document.get("missing", ())
    ]
    if missing:
        parts += [element("h3", "Not there"), table(("what", "why", "what it would tell"), [*missing])]
    return parts


def log_section(document: Mapping[str, Any]) -> list[Element]:
    """Return the faults of each BAR that a kernel's log tells of."""
    parts: list[Element] = []
    for one in document["devices"]:
        whole = "" if one.get("complete", True) else f", not complete: {one.get('suppressed')} lines were suppressed"
        parts.append(element("h2", f"{one['device']} BAR {one['bar']}{whole}"))
        rows: list[tuple[Child, ...]] = [(str(f["order"]), str(f["ret"]), f"{f['count']:,}") for f in one["faults"]]
        parts.append(table(("order", "answer", "count"), rows, frozenset({"count"})))
        parts.append(element("ul", *(element("li", worded(said)) for said in one.get("contradicts", ()))))
    return parts or [element("p", "No fault is told of.")]


def verify_section(document: Mapping[str, Any]) -> list[Element]:
    """Return how a real kernel and the model compare."""
    agree, records = document["agree"], document["records"]
    parts = [element("p", f"{agree:,} of {records:,} records agree.", class_="ok" if agree == records else "bad")]
    parts.append(facts(document["booted"]))
    for name in ("disagree", "oops", "refused"):
        rows = document.get(name) or ()
        if rows:
            parts += [element("h2", name), _rows(rows)]
    return parts


def facts(found: Mapping[str, Any]) -> Element:
    """Return a table of names and values."""
    return table(("what", "value"), [(name, worded(value)) for name, value in found.items()])


def _rows(rows: Sequence[Any]) -> Element:
    if not all(isinstance(row, dict) for row in rows):
        return element("ul", *(element("li", worded(row)) for row in rows))
    head = tuple(dict.fromkeys(key for row in rows for key in row))
    return table(head, [tuple(worded(row.get(key, "")) for key in head) for row in rows])
