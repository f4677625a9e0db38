"""The second-stage tables and a page-by-page picture of them agree."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pfnmap.kernel import Kernel
from pfnmap.plugins import Registry
from pfnmap_kvm.stage2 import Leaf, Stage2

ARCH = next(arch for arch in ("x86_64", *Registry().names("arch")) if arch in Registry().names("arch"))
GEOMETRY = Kernel.link(ARCH, release="6.12.117").geometry
PAGES = Stage2(GEOMETRY).pages
SPAN = 2 * PAGES["pud"]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["pud", "pmd", "pte"]), st.integers(0, SPAN - 1), st.integers(0, 1 << 30)),
            st.tuples(st.just("zap"), st.integers(0, SPAN), st.integers(0, SPAN)),
        ),
        max_size=20,
    ),
    st.lists(st.integers(0, SPAN - 1), min_size=1, max_size=20),
)
def test_the_last_leaf_that_covers_a_page_and_was_not_dropped_maps_it(steps, probes):
    tables = Stage2(GEOMETRY)
    alive: list[Leaf] = []
    for what, a, b in steps:
        if what == "zap":
            low, high = sorted((a, b))
            tables.zap(low, high)
            alive = [leaf for leaf in alive if not (leaf.gfn < high and low < leaf.gfn + PAGES[leaf.level])]
        else:
            leaf = Leaf(what, a & -PAGES[what], b, True)
            tables.install(leaf)
            end = leaf.gfn + PAGES[what]
            alive = [old for old in alive if not (old.gfn < end and leaf.gfn < old.gfn + PAGES[old.level])] + [leaf]
    assert sorted(tables) == sorted(alive)
    assert tables.within(0, SPAN) == sorted(alive, key=lambda leaf: leaf.gfn)
    runs = tables.runs(0, SPAN)
    assert [
        leaf._replace(gfn=leaf.gfn + n * PAGES[leaf.level], pfn=leaf.pfn + n * PAGES[leaf.level])
        for leaf, count in runs
        for n in range(count)
    ] == tables.within(0, SPAN)
    for (leaf, count), (following, _) in pairwise(runs):
        on = count * PAGES[leaf.level]
        assert following != leaf._replace(gfn=leaf.gfn + on, pfn=leaf.pfn + on)
    for gfn in probes:
        covering = [leaf for leaf in alive if leaf.gfn <= gfn < leaf.gfn + PAGES[leaf.level]]
        assert tables.leaf(gfn) == (covering[-1] if covering else None)
