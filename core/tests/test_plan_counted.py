"""All of a mapping, counted by its runs, is what counting a part of it gives where that part is the whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pfnmap.contract.plan import HUGE_LEVELS
from pfnmap.plan.costs import Counted, beside, calls, covered, leaves_of, reach_of, touched
from pfnmap.plan.runs import Levels, cut

PAGE = 4096
SIZES = {"pte": PAGE, "pmd": PAGE << 9, "pud": PAGE << 18}
SHIFTS = st.sampled_from([0, 1, 511, 512, 513, (1 << 18) - 1, 1 << 18, (1 << 18) + 512])
PAGES = st.builds(lambda big, small: (big << 9) + small, st.integers(0, 3 << 9), SHIFTS)


@st.composite
def levels(draw: st.DrawFn) -> Levels:
    asked = draw(st.frozensets(st.sampled_from(HUGE_LEVELS)))
    leaves = asked & draw(st.frozensets(st.sampled_from(HUGE_LEVELS)))
    filling = draw(st.sampled_from(("fault", "first fault", "mmap")))
    return Levels(SIZES, filling, asked, leaves, draw(st.booleans()), draw(st.sampled_from([1, 2])), 0)


@given(levels(), PAGES, PAGES.filter(bool), SHIFTS)
def test_a_whole_mapping_is_counted_as_the_part_that_is_all_of_it(
    levels: Levels, first: int, pages: int, shift: int
) -> None:
    start, end, delta = first * PAGE, (first + pages) * PAGE, shift * PAGE
    runs = tuple(run for run in cut(levels, start, end, delta)[0] if run.length)
    whole = ((start, end),)
    counted = Counted.of(levels, runs, start, end)
    assert counted.reach(levels, runs, delta) == reach_of(levels, runs, whole, delta)
    assert counted.leaves == sum(leaves_of(levels, runs, whole).values())
    assert counted.once + 2 * counted.again == calls(levels, runs, whole, 2)
    for size in SIZES.values():
        assert beside(levels, runs, start, end, size) == touched(whole, size) - covered(levels, runs, whole, size)


def test_what_is_not_mapped_costs_nothing() -> None:
    faulted = Levels(SIZES, "fault", frozenset(HUGE_LEVELS), frozenset(HUGE_LEVELS), True, 2, 0)
    assert Counted.of(faulted, (), 0, 0) == Counted(0, 0, 0, 0, {SIZES["pmd"]: 0, SIZES["pud"]: 0})


@given(st.lists(st.integers(0, 12), unique=True, min_size=2).map(sorted), st.sampled_from([1, 2, 4]))
def test_a_block_that_several_parts_touch_is_counted_once(edges: list[int], size: int) -> None:
    """Held against the set of the blocks of every page."""
    parts = list(zip(edges[::2], edges[1::2], strict=False))
    blocks = {page // size for start, end in parts for page in range(start, end)}
    assert touched([(start * PAGE, end * PAGE) for start, end in parts], size * PAGE) == len(blocks)
