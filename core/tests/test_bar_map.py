"""The map of a BAR: its stretches cover it, and what is drawn is as wide as it is said."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pfnmap.report.bar_map import BarMap, Stretch, bar_maps, columns_of, compared, covering, render

MIB, GIB = 1 << 20, 1 << 30


def row(offset: int, va: int, runs: list[tuple[int, str, int]], **more: Any) -> dict[str, Any]:
    """A row of a plan's JSON: an area at `offset`, mapped at `va` by runs of (length, level, count)."""
    at, made = va, []
    for length, level, count in runs:
        made.append({"va": hex(at), "length": length, "level": level, "count": count})
        at += length
    length = sum(run[0] for run in runs)
    sizes = {"pud": GIB, "pmd": 2 * MIB, "pte": 4096}
    common = {"device": None, "sizes": sizes, "bar": 0, "policy": "p", "bar_size": GIB, "blocked": [], "unmapped": []}
    return {
        **common,
        "length": length,
        "va": hex(va),
        "area": {"offset": offset, "length": length},
        "runs": made,
        **more,
    }


def said(one: BarMap) -> list[tuple[int, int, str]]:
    return [(stretch.offset, stretch.length, stretch.kind) for stretch in one.stretches]


def test_runs_stand_at_their_offsets_in_the_bar_with_why_they_are_no_larger():
    blocked = [{"va": hex(4 * MIB), "length": MIB, "level": "pmd", "reason": "r", "detail": "so"}]
    (one,) = bar_maps([row(0, 4 * MIB, [(MIB, "pte", 256), (GIB - MIB, "pmd", 512)], blocked=blocked)])
    assert said(one) == [(0, MIB, "pte"), (MIB, GIB - MIB, "pmd")]
    assert [stretch.reason for stretch in one.stretches] == ["not 2M: so", ""]
    assert [stretch.va for stretch in one.stretches] == [4 * MIB, 5 * MIB]


def test_areas_of_one_bar_are_one_map_with_the_hole_between_them():
    hole = [{"offset": 8192, "length": 8192, "reason": "the MSI-X table"}]
    areas = [
        row(0, 0x10000, [(8192, "pte", 2)], unmapped=hole),
        row(16384, 0x7000_0000, [(GIB - 16384, "pte", 1)], unmapped=hole),
    ]
    (one,) = bar_maps(areas)
    assert said(one) == [(0, 8192, "pte"), (8192, 8192, "hole"), (16384, GIB - 16384, "pte")]
    assert one.stretches[1].reason == "the MSI-X table"


def test_what_nobody_asked_for_and_what_cannot_be_mapped_are_not_mapped():
    (part,) = bar_maps([row(MIB, 0, [(MIB, "pte", 256)])])
    assert said(part) == [(0, MIB, "unmapped"), (MIB, MIB, "pte"), (2 * MIB, GIB - 2 * MIB, "unmapped")]
    blocked = [{"va": "0x0", "length": GIB, "level": "pte", "reason": "not_mmapable", "detail": "it is not"}]
    (none,) = bar_maps([row(0, 0, [], blocked=blocked) | {"length": GIB, "va": None, "area": None}])
    assert said(none) == [(0, GIB, "unmapped")]
    assert none.stretches[0].reason == "it is not"


def test_two_devices_that_nobody_can_tell_apart_are_two_maps():
    rows = [row(0, va, [(GIB, "pud", 1)]) for va in (0x4000_0000, 0x8000_0000)]
    assert [one.stretches[0].va for one in bar_maps(rows)] == [0x4000_0000, 0x8000_0000]


def test_placements_are_maps_of_their_own_and_sides_stand_below_each_other():
    here = bar_maps([row(0, 0, [(GIB, "pte", 1)], policy=name) for name in ("kernel", "aligned")])
    there = bar_maps([row(0, 0, [(GIB, "pmd", 512)], policy=name) for name in ("kernel", "aligned")])
    maps, labels = compared([("a", here), ("b", there)])
    assert [(one.policy, label) for one, label in zip(maps, labels, strict=True)] == [
        ("kernel", "a"),
        ("kernel", "b"),
        ("aligned", "a"),
        ("aligned", "b"),
    ]


@given(st.lists(st.integers(1, 1 << 40), min_size=1, max_size=80), st.integers(1, 60))
def test_the_columns_of_a_picture_are_all_used_and_none_is_lost(lengths: list[int], width: int):
    stretches = [Stretch(sum(lengths[:i]), length, "pte") for i, length in enumerate(lengths)]
    columns = columns_of(stretches, width)
    assert sum(columns) == width
    assert (min(columns) >= 1) == (len(lengths) <= width)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 10)), max_size=6))
def test_a_map_covers_all_of_its_bar(pieces: list[tuple[int, int]]):
    at, found = 0, []
    for gap, length in pieces:
        found.append(Stretch(at + gap, length, "pmd"))
        at += gap + length
    covered = list(covering(found, at + 7))
    assert covered[0].offset == 0
    assert all(left.end == right.offset for left, right in pairwise(covered))
    assert covered[-1].end == at + 7
    assert [stretch for stretch in covered if stretch.kind == "pmd"] == found


def test_the_picture_fits_into_sixty_columns_and_needs_no_colour():
    maps = bar_maps([row(0, 2 * MIB, [(MIB, "pte", 256), (GIB - MIB, "pmd", 512)])])
    picture = [str(part) for part in render(maps)][2]
    assert len(picture) <= 60
    assert picture.strip().strip("|") == "-" + "=" * 55
