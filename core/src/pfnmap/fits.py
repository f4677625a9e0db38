"""Whether a value is of a type as it is written: what plugins answer is checked by the contract's annotations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
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
_MANY = (tuple, list, frozenset)
_AS_GOOD: Mapping[type, tuple[type, ...]] = {tuple: (list,), frozenset: (set,), float: (int,)}


def misfit(value: object, kind: Any) -> str:
    """Return what in a value is not of a type, in words such as "int where tuple[str, ...] is expected"; empty: all is.

    Looks into tuples, collections, mappings, and the fields of dataclasses and named tuples. What a callable takes, and
    what an iterator would give, is not known.
    """
    return "" if type(value) in _whole(kind) else _check(kind)(value, 0)


@cache
def _whole(kind: Any) -> frozenset[type]:
    """The classes whose values, with nothing in them to look at, are of a type: most values need no more."""
    if kind is None:
        return frozenset({NoneType})
    if get_origin(kind) in (Union, UnionType):
        return frozenset[type]().union(*(_whole(one) for one in get_args(kind)))
    return frozenset({kind}) & _WHOLE if isinstance(kind, type) else frozenset()


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
        return _literal(kind, arguments)
    if origin is type:
        base = arguments[0] if isinstance(arguments[0], type) else object
        return lambda value, _: "" if isinstance(value, type) and issubclass(value, base) else _not(value, kind)
    plain = origin or (NoneType if kind is None else kind)
    if not isinstance(plain, type) or getattr(plain, "_is_protocol", False):
        return _anything
    return _instance(kind, plain, _looking_into(plain, () if origin is CallableType else arguments))


def _anything(value: Any, depth: int) -> str:
    return ""


def _union(kind: Any, arguments: tuple[Any, ...]) -> Check:
    whole = _whole(kind)
    checks = [_check(argument) for argument in arguments if argument is not NoneType]
    optional = len(arguments) == 2 and NoneType in arguments

    def check(value: Any, depth: int) -> str:
        if type(value) in whole:
            return ""
        wrong = ""
        for one in checks:
            wrong = one(value, depth)
            if not wrong:
                return ""
        return wrong if optional else _not(value, kind)

    return check


def _literal(kind: Any, arguments: tuple[Any, ...]) -> Check:
    known = {type(one): {other for other in arguments if type(other) is type(one)} for one in arguments}

    def check(value: Any, depth: int) -> str:
        return "" if type(value) in known and value in known[type(value)] else _not(value, kind)

    return check


def _instance(kind: Any, plain: type[Any], inside: Check) -> Check:
    """Return the check of an instance, whose parts `inside` looks at."""
    classes = (plain, *_AS_GOOD.get(plain, ()))
    whole = _whole(kind)

    def check(value: Any, depth: int) -> str:
        if type(value) in whole or depth > _DEEPEST:
            return ""
        return inside(value, depth) if isinstance(value, classes) else _not(value, kind)

    return check


def _looking_into(plain: type[Any], arguments: tuple[Any, ...]) -> Check:
    """Return the check of what an instance of a class holds; the values that are all right need not be named."""
    if not arguments or hasattr(plain, "_fields") or dataclasses.is_dataclass(plain):
        return _fields_of(plain)
    if issubclass(plain, Mapping):
        return _items_of(*map(_check, arguments))
    if plain is tuple and arguments[-1] is not Ellipsis:
        return _places_of(tuple[arguments], [_check(one) for one in arguments])  # type: ignore[valid-type]
    return _parts_of(_whole(arguments[0]), _check(arguments[0]))


def _fields_of(plain: type[Any]) -> Check:
    annotated = hasattr(plain, "_fields") or dataclasses.is_dataclass(plain)

    def check(value: Any, depth: int) -> str:
        if annotated or dataclasses.is_dataclass(value):
            for name, whole, its in _fields(plain):  # type: ignore[arg-type]
                part = getattr(value, name, _ABSENT)
                if type(part) not in whole and part is not _ABSENT and (wrong := its(part, depth + 1)):
                    return f"{name}: {wrong}"
        return ""

    return check


def _items_of(of_key: Check, of_item: Check) -> Check:
    def check(value: Any, depth: int) -> str:
        for key, item in value.items():
            if wrong := of_key(key, depth + 1):
                return f"key: {wrong}"
            if wrong := of_item(item, depth + 1):
                return wrong
        return ""

    return check


def _places_of(kind: Any, checks: Sequence[Check]) -> Check:
    def check(value: Any, depth: int) -> str:
        if len(value) != len(checks):
            return _not(value, kind)
        return next((wrong for part, its in zip(value, checks, strict=True) if (wrong := its(part, depth + 1))), "")

    return check


def _parts_of(whole: frozenset[type], its: Check) -> Check:
    def check(value: Any, depth: int) -> str:
        if isinstance(value, _MANY) or (isinstance(value, Collection) and not isinstance(value, (str, bytes))):
            for part in value:
                if type(part) not in whole and (wrong := its(part, depth + 1)):
                    return wrong
        return ""

    return check


@cache
def _fields(kind: type[Any]) -> tuple[tuple[str, frozenset[type], Check], ...]:
    """The annotated attributes of a class, with the classes whose values are right and what finds misfits in others."""
    return tuple((name, _whole(its), _check(its)) for name, its in _hints(kind).items())  # type: ignore[arg-type]


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
    for name, _, its in _fields(kind):
        value = getattr(holder, name, _ABSENT)
        if value is not _ABSENT and (wrong := its(value, 0)):
            return f"{name}: {wrong}"
    return ""


def _not(value: object, kind: Any) -> str:
    name = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    what = repr(value) if isinstance(value, (str, NoneType)) and len(repr(value)) < 40 else type(value).__name__
    return f"{what} where {name.replace('typing.', '').replace('collections.abc.', '')} is expected"
