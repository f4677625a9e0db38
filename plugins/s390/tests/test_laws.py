"""What must hold for any entry, on every machine of the test data."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

entries = st.integers(0, (1 << 64) - 1)
MK = ("mkyoung", "mkold", "mkdirty", "mkclean", "mkwrite_novma", "wrprotect")
PREDICATES = ("present", "none", "leaf", "bad", "trans_huge", "write", "dirty", "young", "special", "soft_dirty")
ONE_INPUT = sorted(
    {f"{x}_{op}" for x in ("pte", "pmd", "pud") for op in (*MK, *PREDICATES, "pfn", "pgprot", "mkspecial", "mkhuge")}
    | {f"{x}_{op}" for x in ("p4d", "pgd") for op in ("present", "none", "bad", "leaf", "pfn")}
    | {f"{x}_{op}" for x in ("pmd", "pud", "p4d", "pgd") for op in ("populate", "pgtable")}
    | {"pte_mksoft_dirty", "pmd_mksoft_dirty", "pte_clear_soft_dirty"}
    | {"pgprot_noncached", "pgprot_writecombine", "pgprot_device"}
)
PFN_BITS = 52


def defined(kernel, names):
    return [name for name in names if kernel.ops.owners.get(name, "absent") != "absent"]


def cpu_allows(kernel, level, entry):
    return tuple(kernel.arch.mmu_access(level, entry, write)[1] for write in (False, True))


def test_the_empty_entry_of_each_level_is_empty_and_nothing_else(kernel):
    for level in ("pte", "pmd", "pud", "p4d", "pgd"):
        empty = kernel.arch.empty(level)
        assert empty != 0
        assert [getattr(kernel.ops, f"{level}_{op}")(empty) for op in ("none", "present")] == [1, 0], level
    for level in ("pte", "pmd", "pud"):
        assert getattr(kernel.ops, f"{level}_none")(0) == 0
        assert cpu_allows(kernel, level, kernel.arch.empty(level)) == (False, False)


def test_a_region_table_is_folded_for_the_levels_above_its_own(kernel):
    for empty, folded in ((kernel.arch.empty("pud"), ("p4d", "pgd")), (kernel.arch.empty("p4d"), ("pgd",))):
        for level in folded:
            answers = [getattr(kernel.ops, f"{level}_{op}")(empty) for op in ("present", "none", "bad", "leaf")]
            assert answers == [1, 0, 0, 0], level


@given(st.data())
def test_a_pfn_comes_back_from_a_pte_up_to_the_highest_address(kernel, data):
    prot = data.draw(st.sampled_from(kernel.arch.protection_map))
    pfn = data.draw(st.integers(0, (1 << PFN_BITS) - 1) | st.just((1 << PFN_BITS) - 1))
    assert kernel.ops.pte_pfn(kernel.ops.pfn_pte(pfn, prot)) == pfn


@given(st.data())
def test_a_pfn_comes_back_from_a_pmd_leaf_if_it_is_aligned(kernel, data):
    prot = data.draw(st.sampled_from(kernel.arch.protection_map))
    pfn = data.draw(st.integers(0, (1 << PFN_BITS - 8) - 1)) << 8
    pmd = kernel.ops.pmd_mkhuge(kernel.ops.pfn_pmd(pfn, prot))
    assert (kernel.ops.pmd_pfn(pmd), kernel.ops.pmd_leaf(pmd), kernel.ops.pmd_present(pmd)) == (pfn, 1, 1)


@given(st.integers(1, (1 << 51) - 1))
def test_a_table_entry_points_back_to_its_table_and_is_not_a_leaf(kernel, page):
    table = page << 12
    for level in ("pmd", "pud", "p4d", "pgd"):
        entry = getattr(kernel.ops, f"{level}_populate")(table)
        assert getattr(kernel.ops, f"{level}_pgtable")(entry) == table
        answers = [getattr(kernel.ops, f"{level}_{op}")(entry) for op in ("present", "none", "leaf", "bad")]
        assert answers == [1, 0, 0, 0]


@given(st.data())
def test_the_cpu_may_load_what_is_young_and_readable_and_store_what_is_dirty_and_writable_too(kernel, data):
    # The table of bit combinations in asm/pgtable.h, from the entries that the kernel makes.
    ops = kernel.ops
    prot = data.draw(st.sampled_from(kernel.arch.protection_map))
    entry = ops.pfn_pte(data.draw(st.integers(0, (1 << PFN_BITS) - 1)), prot)
    for op in data.draw(st.lists(st.sampled_from(MK), max_size=6)):
        entry = getattr(ops, f"pte_{op}")(entry)
    readable, writable = bool(entry & 0x10), ops.pte_write(entry)
    load = bool(ops.pte_young(entry) and readable)
    assert cpu_allows(kernel, "pte", entry) == (load, bool(load and writable and ops.pte_dirty(entry)))


@given(entries, entries)
def test_special_survives_every_op_on_a_pte(kernel, entry, newprot):
    special = kernel.ops.pte_mkspecial(entry)
    for op in (*MK, "mkhuge"):
        assert kernel.ops.pte_special(getattr(kernel.ops, f"pte_{op}")(special)) == 1, op
    assert kernel.ops.pte_special(kernel.ops.pte_modify(special, newprot)) == 1


@given(st.lists(entries | st.sampled_from([0, 0x20, 0x24, 0x28, 0x2C, 0x400]), min_size=1, max_size=20))
def test_arrays_get_the_bits_of_scalars_lane_by_lane(kernel, values):
    array = np.array(values, dtype=np.uint64)
    for op in defined(kernel, ONE_INPUT):
        function = getattr(kernel.ops, op)
        lanes = function(array)
        assert lanes.dtype == np.uint64, op
        assert lanes.tolist() == [function(value) for value in values], op


@given(st.lists(st.tuples(entries, entries), min_size=1, max_size=20), st.data())
def test_arrays_get_the_bits_of_scalars_in_ops_of_two_inputs(kernel, pairs, data):
    known = st.sampled_from(kernel.arch.protection_map)
    pairs = [(first, data.draw(st.just(second) | known)) for first, second in pairs]
    first, second = (np.array(lane, dtype=np.uint64) for lane in zip(*pairs, strict=True))
    for op in ("pfn_pte", "pfn_pmd", "pte_modify", "pmd_modify", "ptep_set_access_flags", "pmdp_set_access_flags"):
        function = getattr(kernel.ops, op)
        assert function(first, second).tolist() == [function(*pair) for pair in pairs], op
