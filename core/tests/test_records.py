"""pfnmap.records: what comes of its `dataclass` is what comes of the library's."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import threading
import typing
from concurrent.futures import ThreadPoolExecutor
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
            outcome(lambda: setattr(one, "z", 5)) is None,
            hasattr(one, "__dict__"),
            outcome(lambda: one < other) is True,
        ]

    library, ours = both
    assert facts(ours) == facts(library)


def test_they_are_made_and_copied_alike(both: list[Any]) -> None:
    def facts(cls: Any) -> list[Any]:
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
            ((), {}),
            ((1,), {}),
            ((1, (2,), "n"), {}),
            ((1, (2,), "n", 4), {}),
            ((), {"x": 1, "note": "n"}),
            ((1,), {"x": 1}),
            ((), {"x": 1, "z": 2}),
        ]
        one = cls(x=1, y=[2], note="n")
        return [
            *(outcome(lambda args=args, named=named: repr(cls(*args, **named))) for args, named in calls),
            cls(x=1).y is not cls(x=2).y,
            [(p.name, p.kind, p.annotation, p.default is p.empty) for p in inspect.signature(cls).parameters.values()],
            typing.get_type_hints(cls.__init__),
            [dataclasses.astuple(copied(one)) for copied in (copy.copy, copy.deepcopy)],
            cls.__match_args__,
        ]

    library, ours = both
    assert facts(ours) == facts(library)


@records.dataclass(frozen=True, slots=True)
class Kept:
    """What a pickle holds."""

    x: int
    y: tuple[int, ...] = ()


def test_a_frozen_one_with_slots_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(Kept(1, (2,)))) == Kept(1, (2,))


@pytest.mark.parametrize("frozen", [False, True])
def test_fields_that_are_no_parameters_and_a_post_init(frozen: bool) -> None:
    def with_others(make: Any) -> Any:
        class Point:
            """Of which little is said."""

            x: int
            later: int = dataclasses.field(init=False)
            empty: list[int] = dataclasses.field(init=False, default_factory=list)
            same: int = dataclasses.field(init=False, default=7)
            kind: typing.ClassVar[int] = 3
            only: int = dataclasses.field(default=5, kw_only=True)

            def __post_init__(self) -> None:
                object.__setattr__(self, "later", self.x + self.only)

        return make(frozen=frozen)(Point)

    library, ours = (with_others(make) for make in (dataclasses.dataclass, records.dataclass))
    assert dataclasses.asdict(ours(1, only=2)) == dataclasses.asdict(library(1, only=2))
    assert str(inspect.signature(ours)) == str(inspect.signature(library))


@pytest.mark.parametrize("below", [dataclasses.dataclass, records.dataclass])
@pytest.mark.parametrize("above", [dataclasses.dataclass, records.dataclass])
def test_subclasses_of_the_librarys_and_of_ours(above: Any, below: Any) -> None:
    @above(frozen=True)
    class Base:
        """With a field."""

        x: int

    @below(frozen=True)
    class Derived(Base):
        """With another."""

        y: int = 0

    one = Derived(1, 2)
    assert (one.x, one.y, one == Derived(1, 2), hash(one) == hash(Derived(1, 2))) == (1, 2, True, True)
    for name in ("x", "y", "z"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(one, name, 3)
    with pytest.raises(TypeError, match="cannot inherit non-frozen"):
        below(type("Thawed", (Base,), {"__doc__": "No."}))


def test_a_plain_subclass_of_a_frozen_one_has_attributes_of_its_own() -> None:
    class Plain(Kept):
        __slots__ = ("z",)

    one = Plain(1)
    one.z = 3
    assert (one.x, one.z) == (1, 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(one, "x", 3)  # noqa: B010


def test_two_threads_make_the_first_one() -> None:
    @records.dataclass
    class Shared:
        """Not made yet."""

        x: int

    barrier = threading.Barrier(8)

    def make(x: int) -> int:
        barrier.wait()
        return Shared(x).x

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(make, range(8))) == list(range(8))


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
