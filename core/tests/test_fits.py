"""Answers of plugins are checked by the contract's annotations, and what is wrong in them is said with where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import pytest

from pfnmap.contract.placement import Area, Placed, Vmm
from pfnmap.contract.plan import Reason, RegionRules
from pfnmap.fits import misfit

WRONG: Any = 3
REASON = Reason("release", "why")
RULES = RegionRules(4096, reasons={"pmd": (REASON,)}, changes=("huge-pfnmap",))
PLACED = Placed((Area(0, 4096, 0, 1, congruent=False),))


def having(value: Any, **fields: Any) -> Any:
    return replace(value, **fields)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1, int),
        (True, int),
        (1, float),
        (3, str | float),
        (None, None),
        (None, str | None),
        ([1, 2], tuple[int, ...]),
        ((1, 2), Sequence[int]),
        ({"a": 1}, Iterable[str]),
        ({"a"}, frozenset[str]),
        ((1, "a"), tuple[int, str]),
        ("pmd", Literal["pmd", "pud"]),
        (print, Callable[[int], int]),
        (object(), Any),
        (RULES, RegionRules),
        ([PLACED], list[Placed]),
        ((), tuple[()]),
    ],
)
def test_a_value_of_a_type_is_no_misfit(value: object, kind: Any) -> None:
    assert misfit(value, kind) == ""


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        ("1", int, "'1' where int is expected"),
        (1, bool, "int where bool is expected"),
        (3, str | None, "int where str is expected"),
        (b"", str | float, "bytes where str | float is expected"),
        ((1, "a"), tuple[int, ...], "'a' where int is expected"),
        ([1], tuple[int, str], "list where tuple[int, str] is expected"),
        (("a", 1), tuple[int, str], "'a' where int is expected"),
        ({1: 2}, Mapping[str, int], "key: int where str is expected"),
        ({"a": "b"}, Mapping[str, int], "'b' where int is expected"),
        ("pte", Literal["pmd", "pud"], "'pte' where Literal['pmd', 'pud'] is expected"),
        (int, type[Vmm], "type where type[pfnmap.contract.placement.Vmm] is expected"),
        (having(RULES, refused=3), RegionRules, "refused: int where str is expected"),
        (
            having(RULES, reasons={"pte": (Reason("why", WRONG),)}),
            RegionRules,
            "reasons: detail: int where str is expected",
        ),
        (having(RULES, answers=frozenset({"p4d"})), RegionRules, "answers: 'p4d' where Literal['pte', 'pmd', 'pud']"),
        ([having(PLACED, areas=(1,))], list[Placed], "areas: int where Area is expected"),
    ],
)
def test_what_is_wrong_in_a_value_is_said_with_where_it_is(value: object, kind: Any, said: str) -> None:
    assert misfit(value, kind).startswith(said)
