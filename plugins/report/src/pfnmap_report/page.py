"""The page: what was asked of which kernel, the pictures, and the document that they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any
from xml.etree.ElementTree import Element

from pfnmap.report.heading import assumed_lines, kernel_line
from pfnmap.report.json import dumps
from pfnmap_report.markup import element, html
from pfnmap_report.other_sections import host_section, log_section, verify_section
from pfnmap_report.plan_section import Side, mappings_sections, undetermined_section
from pfnmap_report.run_section import run_section

__all__ = ["page"]


def page(document: Mapping[str, Any]) -> str:
    """Return the HTML page of a document that `checked` passed. It needs nothing but itself.

    Raises KeyError, TypeError, ValueError, ArithmeticError or AttributeError for a document that is not as its schema
    says.
    """
    command = document["schema"].removeprefix("pfnmap-").removesuffix("/1")
    title = f"pfnmap {command}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", _resource("page.css")),
    )
    main = element("main", element("h1", title), *_kernel(document), *_sections(command, document), _box(document))
    body = element("body", main, element("script", _resource("page.js")))
    return html(element("html", head, body, lang="en"))


def _resource(name: str) -> str:
    return (files("pfnmap_report") / name).read_text(encoding="utf-8")


def _kernel(document: Mapping[str, Any]) -> list[Element]:
    """The kernels that the answers hold for, with what of them nobody said; one where both sides have the same."""
    against = document.get("against") or {}
    kernels = [kernel for kernel in (document.get("kernel"), against.get("kernel")) if kernel]
    said = dict.fromkeys((kernel_line(kernel), tuple(assumed_lines(kernel))) for kernel in kernels)
    parts = []
    for line, assumed in said:
        parts.append(element("p", element("strong", line), class_="kernel"))
        parts += [element("p", text, class_="assumed") for text in assumed]
    return parts


def _sections(command: str, document: Mapping[str, Any]) -> list[Element]:
    if command == "run":
        return run_section(document)
    if command == "log":
        return log_section(document)
    if command == "verify":
        return verify_section(document)
    sections = host_section(document) if command == "host" else []
    sections += mappings_sections(_sides(document))
    for row in document.get("undetermined", ()):
        sections += undetermined_section(row, document["mappings"])
    for row in document.get("skipped", ()):
        sections.append(element("p", f"{row['device']}: left out: {row['reason']}", class_="assumed"))
    return sections + _advice(document)


def _sides(document: Mapping[str, Any]) -> list[Side]:
    here = document.get("kernel") or document["host"]
    against = document.get("against")
    if not against:
        return [("", here["page_size"], document["mappings"])]
    kernels = [here, against["kernel"]]
    names = [f"{kernel['arch']} {kernel['release']}" for kernel in kernels]
    if names[0] == names[1]:
        names = ["this side", "the other side"]
    rows = [document["mappings"], against["mappings"]]
    return [(name, kernel["page_size"], side) for name, kernel, side in zip(names, kernels, rows, strict=True)]


def _advice(document: Mapping[str, Any]) -> list[Element]:
    advice = document.get("advice")
    if not advice:
        return []
    lines = []
    for one in advice:
        saved = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in one["saves"].items() if count)
        lines.append(element("li", element("code", ", ".join(one["changes"])), f": {saved} less" if saved else ""))
    return [element("h2", "What would help, what saves most first"), element("ol", *lines)]


def _box(document: Mapping[str, Any]) -> Element:
    return element(
        "section",
        element("h2", "The answer as JSON"),
        element("p", element("button", "Copy", id="copy", type="button"), " ", element("output", "", id="copied")),
        element("details", element("summary", "Show"), element("pre", dumps(document), id="document", tabindex="0")),
    )
