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
        if wrong := _wrong(item):
            raise BadInput(f"{where} {value['op']} {key}", wrong)
    expect = value.get("expect", {})
    if not isinstance(expect, dict):
        raise BadInput(where, "expect is a table")
    by = value.get("by", "parent")
    if by not in ("parent", "child"):
        raise BadInput(where, f"by = {by!r} is neither parent nor child")
    arguments = {key: item for key, item in value.items() if key not in _KEYS}
    return Step(value["op"], arguments, expect, by, value.get("at"), f"{where} {value['op']}")


def _wrong(value: Any, depth: int = 0) -> str:
    """Return what is wrong with a value that is not made of text, whole numbers of 64 bits, booleans, lists and tables;
    empty: nothing."""
    if isinstance(value, (str, NoneType)):
        return ""
    if isinstance(value, (list, dict)):
        if depth > _DEPTH:
            return "nested too deeply"
        for item in value.values() if isinstance(value, dict) else value:
            if wrong := _wrong(item, depth + 1):
                return wrong
        return ""
    if isinstance(value, int):
        return "a number that does not fit in 64 bits" if abs(value) >= 1 << 64 else ""
    return f"{value} is of the wrong kind"
