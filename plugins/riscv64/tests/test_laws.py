"""What must hold for any entry, in every mode and with every extension."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

entries = st.integers(0, (1 << 64) - 1)
LEAVES = ("pte", "pmd", "pud")
MK = ["mkhuge", "mkyoung", "mkold", "mkdirty", "mkclean", "mkwrite_novma", "wrprotect", "mksoft_dirty", "mkspecial"]
PREDICATES = ["present", "none", "leaf", "bad", "trans_huge", "write", "dirty", "young", "special", "soft_dirty"]
ONE_INPUT = sorted(
    {f"{level}_{op}" for level in LEAVES for op in (*MK, *PREDICATES, "pfn", "pgprot", "pgtable", "populate")}
    | {f"{level}_{op}" for level in ("p4d", "pgd") for op in ("present", "none", "bad", "leaf", "populate")}
    | {"pgprot_noncached", "pgprot_writecombine", "pgprot_device", "pte_clear_soft_dirty", "pud_mkwrite"}
)
PFN_BITS = 44


def defined(machine, names):
    return [name for name in names if machine.ops.owners.get(name, "absent") != "absent"]


def of(ops, level, name):
    return getattr(ops, f"{level}_{name}")


@given(entries, entries)
def test_special_survives_every_op_on_a_leaf(machine, entry, newprot):
    ops = machine.ops
    for level in LEAVES:
        special = of(ops, level, "mkspecial")(entry)
        for name in defined(machine, [f"{level}_{op}" for op in (*MK, "mkwrite")]):
            args = (special, 0) if name in ("pte_mkwrite", "pmd_mkwrite") else (special,)
            assert of(ops, level, "special")(getattr(ops, name)(*args)) == 1, name
        assert of(ops, level, "special")(of(ops, level, "modify")(special, newprot)) == 1


@given(st.data())
def test_a_pfn_comes_back_up_to_the_highest_physical_address(machine, data):
    prot = data.draw(st.sampled_from(machine.arch.protection_map))
    prot = data.draw(st.sampled_from([prot, machine.ops.pgprot_noncached(prot), machine.ops.pgprot_writecombine(prot)]))
    for level in LEAVES:
        order = machine.geometry.shift(level) - machine.geometry.PAGE_SHIFT
        highest = (1 << (PFN_BITS - order)) - 1
        pfn = data.draw(st.integers(0, highest) | st.just(highest)) << order
        entry = getattr(machine.ops, f"pfn_{level}")(pfn, prot)
        assert of(machine.ops, level, "pfn")(entry) == pfn
        assert of(machine.ops, level, "pgprot")(entry) == prot


@given(st.data())
def test_a_table_entry_points_back_to_its_table_and_is_not_a_leaf(machine, data):
    reach = min(1 << PFN_BITS, machine.arch.linear_map >> 12)
    table = data.draw(st.integers(0, reach - 1)) << 12
    for level in ("pmd", "pud"):
        entry = of(machine.ops, level, "populate")(table)
        assert of(machine.ops, level, "pgtable")(entry) == table
        assert [of(machine.ops, level, op)(entry) for op in ("present", "none", "leaf", "bad")] == [1, 0, 0, 0]


@given(st.integers(1, (1 << PFN_BITS) - 1), st.integers(1, 15))
def test_an_accessible_leaf_is_told_from_a_table(machine, pfn, vm_flags):
    prot = machine.ops.vm_get_page_prot(vm_flags if vm_flags & 7 else 1)
    for level in ("pmd", "pud"):
        entry = of(machine.ops, level, "mkhuge")(getattr(machine.ops, f"pfn_{level}")(pfn, prot))
        answers = [of(machine.ops, level, op)(entry) for op in ("present", "none", "leaf", "bad", "trans_huge")]
        assert answers == [1, 0, 1, 1, 1]


@given(st.lists(entries | st.just(0), min_size=1, max_size=20))
def test_arrays_get_the_bits_of_scalars_lane_by_lane(machine, values):
    array = np.array(values, dtype=np.uint64)
    for op in defined(machine, ONE_INPUT):
        function = getattr(machine.ops, op)
        lanes = function(array)
        assert lanes.dtype == np.uint64, op
        assert lanes.tolist() == [function(value) for value in values], op


@given(st.lists(st.tuples(entries, entries), min_size=1, max_size=20), st.integers(0, 1))
def test_arrays_get_the_bits_of_scalars_in_ops_of_two_inputs(machine, pairs, write):
    first, second = (np.array(lane, dtype=np.uint64) for lane in zip(*pairs, strict=True))
    names = [f"pfn_{x}" for x in LEAVES] + [f"{x}_modify" for x in LEAVES] + ["ptep_set_access_flags"]
    for op in defined(machine, names):
        function = getattr(machine.ops, op)
        assert function(first, second).tolist() == [function(*pair) for pair in pairs], op
    for level in LEAVES:
        function = of(machine.ops, level, "access_permitted")
        assert function(first, write).tolist() == [function(value, write) for value, _ in pairs], level
