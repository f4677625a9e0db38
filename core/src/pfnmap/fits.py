"""Whether a value is of a type as it is written: what plugins answer is checked by the contract's annotations."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["misfit", "undeclared"]

_ABSENT = object()
_DEEPEST = 8
_WHOLE = frozenset({int, str, bool, float, NoneType})
"""Types with nothing in them to look at."""
_AS_GOOD: Mapping[type, tuple[type, ...]] = {tuple: (list,), frozenset: (set,), float: (int,)}


def misfit(value: object, kind: Any, depth: int = 0) -> str:
    """Return what in a value is not of a type, in words such as "int where tuple[str, ...] is expected"; empty: all is.

    Looks into tuples, collections, mappings, and the fields of dataclasses and named tuples. What a callable takes, and
    what an iterator would give, is not known.
    """
    if type(value) is kind and kind in _WHOLE:
        return ""
    if kind is Any or kind is object or isinstance(kind, (TypeVar, str)) or depth > _DEEPEST:
        return ""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (ClassVar, Final, Annotated):
        return misfit(value, arguments[0], depth)
    if origin in (Union, UnionType):
        if type(value) in _WHOLE and type(value) in arguments:
            return ""
        found = [misfit(value, argument, depth) for argument in arguments]
        optional = len(arguments) == 2 and arguments[1] is NoneType
        return "" if "" in found else (found[0] if optional else _not(value, kind))
    if origin is Literal:
        fits = any(type(value) is type(argument) and value == argument for argument in arguments)
        return "" if fits else _not(value, kind)
    if origin is type:
        fits = isinstance(value, type) and (not isinstance(arguments[0], type) or issubclass(value, arguments[0]))
        return "" if fits else _not(value, kind)
    plain = origin or (NoneType if kind is None else kind)
    if not isinstance(plain, type) or getattr(plain, "_is_protocol", False):
        return ""
    if not isinstance(value, (plain, *_AS_GOOD.get(plain, ()))):
        return _not(value, kind)
    if isinstance(value, tuple) and arguments and arguments[-1] is not Ellipsis and len(arguments) != len(value):
        return _not(value, kind)
    parts = _parts(value, plain, arguments)
    return next((f"{where}{wrong}" for where, part, its in parts if (wrong := misfit(part, its, depth + 1))), "")


def _parts(value: Any, plain: type[Any], arguments: tuple[Any, ...]) -> Iterator[tuple[str, Any, Any]]:
    """Yield the parts of a value with where they are and the types that they are to be of."""
    if dataclasses.is_dataclass(value) or hasattr(plain, "_fields"):
        for name, kind in _hints(plain).items():  # type: ignore[arg-type]
            if hasattr(value, name):
                yield f"{name}: ", getattr(value, name), kind
    elif not arguments:
        return
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield "key: ", key, arguments[0]
            yield "", item, arguments[1]
    elif plain is tuple and arguments[-1] is not Ellipsis:
        yield from (("", part, its) for part, its in zip(value, arguments, strict=True))
    elif isinstance(value, Collection) and not isinstance(value, (str, bytes)):
        yield from (("", part, arguments[0]) for part in value)


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    """Return the annotated attributes of a class, its bases' too, with their types; none where those cannot be had."""
    try:
        return get_type_hints(kind)
    except NameError:  # imported for the type checker alone
        return {}


def undeclared(holder: object, kind: type) -> str:
    """Return what in a class, or an object, is not as a class of the contract annotates it; empty: nothing. What it
    does not have is not looked for."""
    for name, its in _hints(kind).items():
        value = getattr(holder, name, _ABSENT)
        if value is not _ABSENT and (wrong := misfit(value, its)):
            return f"{name}: {wrong}"
    return ""


def _not(value: object, kind: Any) -> str:
    name = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    what = repr(value) if isinstance(value, (str, NoneType)) and len(repr(value)) < 40 else type(value).__name__
    return f"{what} where {name.replace('typing.', '').replace('collections.abc.', '')} is expected"
