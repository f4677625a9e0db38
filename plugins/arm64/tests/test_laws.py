"""What must hold for any entry, on every machine of the test data."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

entries = st.integers(0, (1 << 64) - 1)
LEAVES = ("pte", "pmd", "pud")
MK = [
    "mkhuge",
    "mkyoung",
    "mkold",
    "mkdirty",
    "mkclean",
    "mkwrite_novma",
    "wrprotect",
    "mkspecial",
    "mkdevmap",
]
PREDICATES = ["present", "none", "leaf", "bad", "trans_huge", "write", "dirty", "young", "special", "devmap"]
ONE_INPUT = sorted(
    {f"{level}_{op}" for level in LEAVES for op in (*MK, *PREDICATES, "pfn", "pgprot", "pgtable", "populate")}
    | {f"{level}_{op}" for level in ("p4d", "pgd") for op in ("present", "none", "bad", "leaf", "populate")}
    | {"pgprot_noncached", "pgprot_writecombine", "pgprot_device"}
)


def defined(kernel, names):
    return [name for name in names if kernel.ops.owners.get(name, "absent") != "absent"]


def physical_bits(kernel):
    """PHYS_MASK_SHIFT: 52 with 64K pages (all test data has PA_BITS=52) or with LPA2, else 48."""
    return 52 if kernel.cpu["lpa2"] or kernel.geometry.PAGE_SHIFT == 16 else 48


@given(entries, entries)
def test_special_survives_every_op_on_a_leaf(kernel, entry, newprot):
    for level in ("pte", "pmd"):
        ops = kernel.ops
        special = getattr(ops, f"{level}_mkspecial")(entry)
        for name in defined(kernel, [f"{level}_{op}" for op in MK]):
            assert getattr(ops, f"{level}_special")(getattr(ops, name)(special)) == 1, name
        assert getattr(ops, f"{level}_special")(getattr(ops, f"{level}_modify")(special, newprot)) == 1


@given(st.data())
def test_a_pfn_comes_back_up_to_the_highest_physical_address(kernel, data):
    prot = data.draw(st.sampled_from(kernel.arch.protection_map))
    for level in LEAVES:
        order = kernel.geometry.shift(level) - kernel.geometry.PAGE_SHIFT
        highest = (1 << (physical_bits(kernel) - kernel.geometry.shift(level))) - 1
        pfn = data.draw(st.integers(0, highest) | st.just(highest)) << order
        entry = getattr(kernel.ops, f"pfn_{level}")(pfn, prot)
        assert getattr(kernel.ops, f"{level}_pfn")(entry) == pfn
        assert getattr(kernel.ops, f"{level}_pgprot")(entry) == prot


@given(st.data())
def test_a_table_entry_points_back_to_its_table_and_is_not_a_leaf(kernel, data):
    shift = kernel.geometry.PAGE_SHIFT
    table = data.draw(st.integers(0, (1 << (physical_bits(kernel) - shift)) - 1)) << shift
    for level in ("pmd", "pud"):
        entry = getattr(kernel.ops, f"{level}_populate")(table)
        assert getattr(kernel.ops, f"{level}_pgtable")(entry) == table
        answers = [getattr(kernel.ops, f"{level}_{op}")(entry) for op in ("present", "none", "leaf", "bad")]
        assert answers == [1, 0, 0, 0]


@given(entries, entries)
def test_set_access_flags_changes_flags_only_and_never_takes_access_away(kernel, old, entry):
    for level in ("pte", "pmd"):
        ops = kernel.ops
        merged = getattr(ops, f"{level}p_set_access_flags")(old, entry)
        assert merged ^ old & (1 << 64) - 1 == (merged ^ old) & 0x88_0000_0000_0480
        for op in ("young", "write", "dirty"):
            assert getattr(ops, f"{level}_{op}")(merged) >= getattr(ops, f"{level}_{op}")(old)
        assert getattr(ops, f"{level}p_set_access_flags")(merged, entry) == merged


@given(st.lists(entries | st.just(0), min_size=1, max_size=20))
def test_arrays_get_the_bits_of_scalars_lane_by_lane(kernel, values):
    array = np.array(values, dtype=np.uint64)
    for op in defined(kernel, ONE_INPUT):
        function = getattr(kernel.ops, op)
        lanes = function(array)
        assert lanes.dtype == np.uint64, op
        assert lanes.tolist() == [function(value) for value in values], op


@given(st.lists(st.tuples(entries, entries), min_size=1, max_size=20), st.integers(0, 1))
def test_arrays_get_the_bits_of_scalars_in_ops_of_two_inputs(kernel, pairs, write):
    first, second = (np.array(lane, dtype=np.uint64) for lane in zip(*pairs, strict=True))
    names = [f"pfn_{x}" for x in LEAVES] + [f"{x}_modify" for x in LEAVES] + ["ptep_set_access_flags"]
    for op in defined(kernel, names):
        function = getattr(kernel.ops, op)
        assert function(first, second).tolist() == [function(*pair) for pair in pairs], op
    for level in LEAVES:
        function = getattr(kernel.ops, f"{level}_access_permitted")
        assert function(first, write).tolist() == [function(value, write) for value, _ in pairs], level
