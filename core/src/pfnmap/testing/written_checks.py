"""The checks of what a new plugin's author has still to write: one for each such method or hook of the class.

``pfnmap new`` writes them as ``raise Unwritten(name)``; a method whose code mentions Unwritten is still to be written.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from pfnmap.errors import Unwritten
from pfnmap.testing.check import Check
from pfnmap.testing.reference import sentence

__all__ = ["written_checks"]


def written_checks(plugin: type[Any]) -> list[Check]:
    """Return a check for each method or hook that is still to be written, in the order of the class. Each fails."""
    found = []
    for kind in plugin.__mro__:
        for name, member in vars(kind).items():
            function = member.fget if isinstance(member, property) else member
            code = getattr(function, "__code__", None)
            if code and "Unwritten" in code.co_names and inspect.getattr_static(plugin, name) is member:
                found.append(Check(f"written-{name}", sentence(name) or f"{plugin.__name__} says so", _reporter(name)))
    return found


def _reporter(name: str) -> Callable[..., None]:
    def report(subject: object) -> None:
        raise Unwritten(name)

    return report
