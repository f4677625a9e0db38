"""Whether a value is of a type as it is written: what plugins answer is checked by the contract's annotations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["misfit", "undeclared"]

_ABSENT = object()
_DEEPEST = 8
_WHOLE = frozenset({int, str, bool, float, NoneType})
"""Types with nothing in them to look at."""
CallableType: Any = get_origin(Callable[[], None])
Check = Callable[[Any, int], str]
_AS_GOOD: Mapping[type, tuple[type, ...]] = {tuple: (list,), frozenset: (set,), float: (int,)}


def misfit(value: object, kind: Any) -> str:
    """Return what in a value is not of a type, in words such as "int where tuple[str, ...] is expected"; empty: all is.

    Looks into tuples, collections, mappings, and the fields of dataclasses and named tuples. What a callable takes, and
    what an iterator would give, is not known.
    """
    return "" if type(value) is kind and kind in _WHOLE else _check(kind)(value, 0)


@cache
def _check(kind: Any) -> Check:
    """Return what finds the misfit of a value, so many containers deep, for one type: types are few, values many."""
    if kind is Any or kind is object or isinstance(kind, (TypeVar, str)):
        return _anything
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (ClassVar, Final, Annotated):
        return _check(arguments[0])
    if origin in (Union, UnionType):
        return _union(kind, arguments)
    if origin is Literal:
        return lambda value, _: (
            "" if any(type(value) is type(one) and value == one for one in arguments) else _not(value, kind)
        )
    if origin is type:
        base = arguments[0] if isinstance(arguments[0], type) else object
        return lambda value, _: "" if isinstance(value, type) and issubclass(value, base) else _not(value, kind)
    plain = origin or (NoneType if kind is None else kind)
    if not isinstance(plain, type) or getattr(plain, "_is_protocol", False):
        return _anything
    return _instance(kind, plain, () if origin is CallableType else arguments)


def _anything(value: Any, depth: int) -> str:
    return ""


def _union(kind: Any, arguments: tuple[Any, ...]) -> Check:
    checks = [_check(argument) for argument in arguments]
    whole = _WHOLE.intersection(arguments)
    optional = len(arguments) == 2 and arguments[1] is NoneType

    def check(value: Any, depth: int) -> str:
        if type(value) in whole:
            return ""
        found = [one(value, depth) for one in checks]
        return "" if "" in found else (found[0] if optional else _not(value, kind))

    return check


def _instance(kind: Any, plain: type[Any], arguments: tuple[Any, ...]) -> Check:
    classes = (plain, *_AS_GOOD.get(plain, ()))
    counted = len(arguments) if arguments and arguments[-1] is not Ellipsis else 0

    def check(value: Any, depth: int) -> str:
        if type(value) is plain and plain in _WHOLE:
            return ""
        if depth > _DEEPEST:
            return ""
        if not isinstance(value, classes):
            return _not(value, kind)
        if counted and isinstance(value, tuple) and counted != len(value):
            return _not(value, kind)
        parts = _parts(value, plain, arguments)
        return next((f"{where}{wrong}" for where, part, its in parts if (wrong := its(part, depth + 1))), "")

    return check


def _parts(value: Any, plain: type[Any], arguments: tuple[Any, ...]) -> Iterator[tuple[str, Any, Check]]:
    """Yield the parts of a value with where they are and what finds their misfits."""
    if dataclasses.is_dataclass(value) or hasattr(plain, "_fields"):
        for name, its in _fields(plain):  # type: ignore[arg-type]
            if (part := getattr(value, name, _ABSENT)) is not _ABSENT:
                yield f"{name}: ", part, its
    elif not arguments:
        return
    elif isinstance(value, Mapping):
        of_key, of_item = _check(arguments[0]), _check(arguments[1])
        for key, item in value.items():
            yield "key: ", key, of_key
            yield "", item, of_item
    elif plain is tuple and arguments[-1] is not Ellipsis:
        yield from (("", part, _check(its)) for part, its in zip(value, arguments, strict=True))
    elif isinstance(value, Collection) and not isinstance(value, (str, bytes)):
        its = _check(arguments[0])
        yield from (("", part, its) for part in value)


@cache
def _fields(kind: type[Any]) -> tuple[tuple[str, Check], ...]:
    """The annotated attributes of a class with what finds their misfits."""
    return tuple((name, _check(its)) for name, its in _hints(kind).items())  # type: ignore[arg-type]


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
    for name, its in _fields(kind):
        value = getattr(holder, name, _ABSENT)
        if value is not _ABSENT and (wrong := its(value, 0)):
            return f"{name}: {wrong}"
    return ""


def _not(value: object, kind: Any) -> str:
    name = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    what = repr(value) if isinstance(value, (str, NoneType)) and len(repr(value)) < 40 else type(value).__name__
    return f"{what} where {name.replace('typing.', '').replace('collections.abc.', '')} is expected"
