"""Elements of HTML and SVG; whatever text or attribute they get is escaped when they are written."""

from __future__ import annotations

import json
from typing import Any
from xml.etree.ElementTree import Element, tostring

from pfnmap.report.text import printable

__all__ = ["element", "html", "table", "worded"]

Child = Element | str


def element(name: str, /, *children: Child, **attributes: Any) -> Element:
    """Return an element. An attribute's ``_`` is ``-`` and a last one is dropped (``class_``); None leaves it out and
    True writes its name alone."""
    made = Element(name)
    for key, value in attributes.items():
        if value is not None and value is not False:
            made.set(key.rstrip("_").replace("_", "-"), "" if value is True else _clean(str(value)))
    last: Element | None = None
    for child in children:
        if isinstance(child, Element):
            made.append(child)
            last = child
        elif last is None:
            made.text = (made.text or "") + _clean(child)
        else:
            last.tail = (last.tail or "") + _clean(child)
    return made


def table(head: tuple[str, ...], rows: list[tuple[Child, ...]], numbers: frozenset[str] = frozenset()) -> Element:
    """Return a table in a box that scrolls by itself on a narrow screen; columns named in `numbers` are aligned
    right."""
    classes = ["number" if name in numbers else None for name in head]
    heads = [element("th", name, scope="col", class_=kind) for name, kind in zip(head, classes, strict=True)]
    lines = [
        element("tr", *(element("td", cell, class_=kind) for cell, kind in zip(row, classes, strict=True)))
        for row in rows
    ]
    made = element("table", element("thead", element("tr", *heads)), element("tbody", *lines))
    return element("div", made, class_="wide", tabindex="0", role="region", aria_label=", ".join(filter(None, head)))


def html(root: Element) -> str:
    """Return the page."""
    return "<!DOCTYPE html>\n" + tostring(root, encoding="unicode", method="html") + "\n"


def _clean(text: str) -> str:
    """A text without characters that HTML has no place for, its lines kept."""
    return "\n".join(map(printable, text.split("\n")))


def worded(value: Any) -> str:
    """Return a value of a document as it is read: a text as it is, else its JSON."""
    return value if isinstance(value, str) else json.dumps(value)
