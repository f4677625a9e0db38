"""docs/hooks.md: the contract in words, and what the kit checks (``python -m pfnmap.testing.hooks_page``)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from pfnmap.testing import arch_subject
from pfnmap.testing.driver_subject import DriverSubject
from pfnmap.testing.kit import ARCH_CHECKS, DRIVER_CHECKS
from pfnmap.testing.reference import SECTIONS, entries

__all__ = ["page"]


def page() -> str:
    """Return docs/hooks.md."""
    lines = [
        "# Hooks and methods",
        "",
        "All that a plugin may write, and what each answers. This page is made from the contract's sources",
        "(`pfnmap/hookspecs.py`, `pfnmap/contract/`):",
        "`python -m pfnmap.testing.hooks_page > docs/hooks.md`. How they fit together:",
        "[Write an architecture plugin](write-an-architecture.md), [Write a driver plugin](write-a-driver.md).",
        "",
        "An **entry** is an unsigned 64-bit integer: a Python `int`, or a `numpy.uint64` array of entries.",
        "Every op gives the same bits for both, without importing numpy: no branch on an entry, no `~`, left",
        "shifts masked to 64 bits, predicates that answer 0 or 1, selection by `predicate * MASK`.",
    ]
    section = ""
    for entry in entries():
        if entry.section != section:
            section = entry.section
            lines += ["", f"## {section}", "", SECTIONS[section]]
        lines += ["", f"### {entry.name}", "", f"    {entry.name}{entry.signature}", "", entry.text]
    return "\n".join([*lines, *_checks()]) + "\n"


def _checks() -> Iterator[str]:
    yield from ("", "## What the conformance kit checks", "")
    yield "`pfnmap check NAME -v` runs them all. A check *needs* capabilities: what a plugin does not claim is not"
    yield "tested, what it claims is. X is the level."
    kinds = (
        ("Of an architecture", ARCH_CHECKS, arch_subject.capabilities),
        ("Of a driver", DRIVER_CHECKS, DriverSubject.capabilities),
    )
    for title, checks, capabilities in kinds:
        claims = (inspect.getdoc(capabilities) or "").partition("\n\n")
        yield from ("", f"### {title}", "", (claims[2] or claims[0]).replace("``", "`"))
        yield from ("", "| check | levels | needs | why |", "| --- | --- | --- | --- |")
        for check in checks:
            needs = ", ".join(f"`{need}`" for need in check.needs)
            yield f"| `{check.name}` | {' '.join(check.levels)} | {needs} | {check.reason} |"


if __name__ == "__main__":
    print(page(), end="")
