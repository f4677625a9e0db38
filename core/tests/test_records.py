"""pfnmap.records: what comes of its `dataclass` is what comes of the library's."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pfnmap import records

KINDS: list[dict[str, bool]] = [
    {},
    {"frozen": True},
    {"slots": True},
    {"frozen": True, "slots": True},
    {"frozen": True, "kw_only": True},
    {"frozen": True, "eq": False},
    {"eq": False},
    {"frozen": True, "order": True},
]


def point(make: Any, kind: dict[str, bool]) -> Any:
    class Point:
        """A point."""

        x: int
        y: list[int] = dataclasses.field(default_factory=list)
        note: str = dataclasses.field(default="", compare=False, repr=False)

    Point.__qualname__ = "Point"
    return make(**kind)(Point)


@pytest.fixture(params=KINDS, ids=lambda kind: ",".join(kind) or "plain")
def both(request: pytest.FixtureRequest) -> list[Any]:
    return [point(make, request.param) for make in (dataclasses.dataclass, records.dataclass)]


def outcome(call: Any) -> Any:
    try:
        return call()
    except (TypeError, AttributeError) as error:
        return type(error), str(error)


def test_they_compare_show_hash_and_refuse_alike(both: list[Any]) -> None:
    def facts(cls: Any) -> list[Any]:
        one, same, other = cls(x=1, y=(), note="a"), cls(x=1, y=(), note="b"), cls(x=2)
        empty = dataclasses.make_dataclass("Empty", [])()
        return [
            [one == same, one != same, one == other, one == empty, one == (1, ())],
            [repr(one), dataclasses.asdict(one), dataclasses.replace(one, x=3) == cls(x=3)],
            outcome(lambda: hash(one) == hash(same)),
            outcome(lambda: setattr(one, "x", 5)),
            outcome(lambda: delattr(other, "x")),
            outcome(lambda: setattr(one, "z", 5))[:1] if "__slots__" in vars(cls) else None,
            hasattr(one, "__dict__"),
            outcome(lambda: one < other) is True,
        ]

    library, ours = both
    assert facts(ours) == facts(library)


def test_methods_of_its_own_stay() -> None:
    def own(make: Any) -> Any:
        class Own:
            """Compares nothing."""

            x: int

            def __eq__(self, other: object) -> bool:
                return True

            def __repr__(self) -> str:
                return "own"

        return make(frozen=True)(Own)

    library, ours = own(dataclasses.dataclass), own(records.dataclass)
    assert (ours(1) == ours(2), repr(ours(1))) == (library(1) == library(2), repr(library(1))) == (True, "own")
    assert hash(ours(1)) == hash(ours(1))


def test_subclasses_compare_with_their_own_kind_alone() -> None:
    @records.dataclass(frozen=True)
    class Base:
        """With a field."""

        x: int

    @records.dataclass(frozen=True)
    class Derived(Base):
        """With another."""

        y: int = 0

    assert Base(1) != Derived(1)
    assert Derived(1, 2) != Derived(1, 3)
    assert repr(Derived(1, 2)).endswith("Derived(x=1, y=2)")


def test_a_class_without_fields_and_one_that_holds_itself() -> None:
    @records.dataclass(frozen=True)
    class Empty:
        """Nothing."""

    @records.dataclass
    class Holds:
        """Something."""

        what: object = None

    assert Empty() == Empty()
    assert hash(Empty()) == hash(Empty())
    one = Holds()
    one.what = one
    assert repr(one).endswith("Holds(what=...)")
