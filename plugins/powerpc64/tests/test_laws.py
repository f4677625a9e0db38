"""What must hold for any entry, under both MMUs and with both page sizes."""

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
PHYSICAL_BITS = 53


def defined(machine, names):
    return [name for name in names if machine.ops.owners.get(name, "absent") != "absent"]


def leaf_levels(machine):
    """Hash has no PUD leaves, and with 4K pages no PMD leaves either."""
    found = ["pte", "pmd", "pud"]
    if machine.cpu["mmu"] == "hash":
        found = found[: 2 if machine.geometry.PAGE_SHIFT == 16 else 1]
    return found


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


def leaf_bits(machine, level):
    """_PAGE_PTE, and for hash's huge pages H_PAGE_THP_HUGE."""
    return 1 << 62 | (0x2000 if level == "pmd" and machine.cpu["mmu"] == "hash" else 0)


@given(st.data())
def test_a_pfn_comes_back_up_to_the_highest_physical_address(machine, data):
    prot = data.draw(st.sampled_from(machine.arch.protection_map))
    prot = data.draw(st.sampled_from([prot, machine.ops.pgprot_noncached(prot), machine.ops.pgprot_writecombine(prot)]))
    for level in leaf_levels(machine):
        order = machine.geometry.shift(level) - machine.geometry.PAGE_SHIFT
        highest = (1 << (PHYSICAL_BITS - machine.geometry.shift(level))) - 1
        pfn = data.draw(st.integers(0, highest) | st.just(highest)) << order
        entry = getattr(machine.ops, f"pfn_{level}")(pfn, prot)
        assert of(machine.ops, level, "pfn")(entry) == pfn
        assert of(machine.ops, level, "pgprot")(entry) == prot | leaf_bits(machine, level)


@given(st.integers(0, (1 << 41) - 1))
def test_a_table_entry_points_back_to_its_table_and_is_not_a_leaf(machine, frame):
    table = frame << 12
    for level in ("pmd", "pud", "p4d"):
        if machine.cpu["mmu"] == "hash" and machine.geometry.PAGE_SHIFT == 16:
            table &= -0x10000  # tables have two halves and are as large as 16K
        entry = of(machine.ops, level, "populate")(table)
        assert of(machine.ops, level, "pgtable")(entry) == table
        assert [of(machine.ops, level, op)(entry) for op in ("present", "none", "leaf", "bad")] == [1, 0, 0, 0]


@given(st.integers(1, (1 << 37) - 1), st.integers(1, 15))
def test_a_leaf_is_told_from_a_table(machine, pfn, vm_flags):
    prot = machine.ops.vm_get_page_prot(vm_flags)
    for level in leaf_levels(machine)[1:]:
        entry = of(machine.ops, level, "mkhuge")(getattr(machine.ops, f"pfn_{level}")(pfn, prot))
        answers = [of(machine.ops, level, op)(entry) for op in ("present", "none", "leaf", "trans_huge")]
        assert answers == [1, 0, 1, 1]


@given(entries, entries)
def test_set_access_flags_adds_flags_and_takes_nothing_away(machine, old, entry):
    merged = machine.ops.ptep_set_access_flags(old, entry)
    assert merged == old | entry & 0x387
    assert machine.ops.pmdp_set_access_flags(old, entry) == merged


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
    names = [f"pfn_{x}" for x in leaf_levels(machine)] + [f"{x}_modify" for x in LEAVES] + ["ptep_set_access_flags"]
    for op in defined(machine, names):
        function = getattr(machine.ops, op)
        assert function(first, second).tolist() == [function(*pair) for pair in pairs], op
    for level in LEAVES:
        function = of(machine.ops, level, "access_permitted")
        assert function(first, write).tolist() == [function(value, write) for value, _ in pairs], level
