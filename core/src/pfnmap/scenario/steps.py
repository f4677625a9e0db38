"""Steps, as scenario files and recordings both write them."""

from __future__ import annotations

from types import NoneType
from typing import Any

from pfnmap.contract.step import Step
from pfnmap.errors import BadInput

__all__ = ["step_of"]

_DEPTH = 16
_KEYS = ("op", "expect", "by", "at")


def step_of(value: Any, where: str) -> Step:
    """Return a step; its arguments are checked by its op, when a run takes it."""
    if not isinstance(value, dict) or not isinstance(value.get("op"), str):
        raise BadInput(where, "a step is a table with an op")
    for key, item in value.items():
        _plain(item, f"{where} {value['op']} {key}")
    expect = value.get("expect", {})
    if not isinstance(expect, dict):
        raise BadInput(where, "expect is a table")
    by = value.get("by", "parent")
    if by not in ("parent", "child"):
        raise BadInput(where, f"by = {by!r} is neither parent nor child")
    arguments = {key: item for key, item in value.items() if key not in _KEYS}
    return Step(value["op"], arguments, expect, by, value.get("at"), f"{where} {value['op']}")


def _plain(value: Any, where: str, depth: int = 0) -> None:
    """Check that a value is made of text, whole numbers of 64 bits, booleans, lists and tables."""
    if depth > _DEPTH:
        raise BadInput(where, "nested too deeply")
    if isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            _plain(item, where, depth + 1)
    elif isinstance(value, int):
        if abs(value) >= 1 << 64:
            raise BadInput(where, "a number that does not fit in 64 bits")
    elif not isinstance(value, (str, NoneType)):
        raise BadInput(where, f"{value} is of the wrong kind")
