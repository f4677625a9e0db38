"""Tables and lists of a document, checked by the kinds of their values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from reprlib import repr
from typing import Any, Final, TypeAlias

from pfnmap.errors import BadInput, nearest

__all__ = ["Kinds", "check_items", "list_of", "table_of"]

_ITEMS: Final = 100_000

Kinds: TypeAlias = "Mapping[str, type | tuple[type, ...]]"


def table_of(
    value: Any, where: str, kinds: Kinds, required: Iterable[str] = (), *, others: bool = False
) -> dict[str, Any]:
    """Check that a value is a table with these keys and kinds of values, and return it; `others`: other keys may be."""
    if not isinstance(value, dict):
        raise BadInput(where, "a table was expected")
    for key, item in value.items():
        if key in kinds:
            _kind(item, kinds[key], where, key)
        elif not others:
            raise BadInput(where, f"unknown key {key!r}{nearest(key, kinds)}")
    for key in required:
        if key not in value:
            raise BadInput(where, f"{key} is missing")
    return value


def _kind(value: Any, kinds: type | tuple[type, ...], where: str, key: str) -> None:
    allowed = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise BadInput(where, f"{key} = {repr(value)} is of the wrong kind")


def check_items(values: Iterable[Any], kinds: type | tuple[type, ...], where: str, key: str) -> None:
    """Check that the items of a list, or the values of a table, are of a kind."""
    for value in values:
        _kind(value, kinds, where, f"item of {key}")


def list_of(value: Any, where: str, limit: int = _ITEMS) -> list[Any]:
    """Check that a value is a list of no more items than the limit, and return it."""
    if not isinstance(value, list):
        raise BadInput(where, "a list was expected")
    if len(value) > limit:
        raise BadInput(where, f"more than {limit} items")
    return value
