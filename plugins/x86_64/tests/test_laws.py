"""What holds for every entry: laws of the ops, and one answer for ints and arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfnmap.kernel import Kernel
from pfnmap.testing.vectors import Vectors, check_vectors

ENTRIES = st.integers(0, (1 << 64) - 1)
PFNS = st.integers(0, (1 << 40) - 1)
LEVELS = ("pte", "pmd", "pud")
SPECIAL = 0x200
KEPT_BY = ("mkdirty", "mkclean", "mkyoung", "mkold", "wrprotect", "mkwrite")

MACHINES = {
    "6.12.117": {"release": "6.12.117"},
    "7.3.4": {"release": "7.3.4"},
    "6.1.192": {"release": "6.1.192"},
    "6.12.94": {"release": "6.12.94"},
    "la57-pti": {"release": "7.3.4", "cpu": {"la57": True, "pti": True}},
    "sme": {"release": "6.12.117", "config": {"AMD_MEM_ENCRYPT": "y"}, "cpu": {"sme_mask": 1 << 47}},
    "shadow-stack": {"release": "7.3.4", "config": {"X86_USER_SHADOW_STACK": "y"}, "cpu": {"shadow_stack": True}},
    "no-nx": {"release": "6.12.117", "cpu": {"nx": False}},
}


@pytest.fixture(scope="module", params=MACHINES)
def machine(request) -> Kernel:
    said = MACHINES[request.param]
    config = {"TRANSPARENT_HUGEPAGE": "y", "MEM_SOFT_DIRTY": "y", **said.get("config", {})}
    return Kernel.link("x86_64", **{**said, "config": config})


def _mkwrite(machine, level):
    op = getattr(machine.ops, f"{level}_mkwrite")
    return op if level == "pud" else lambda entry: op(entry, 0xB)


@given(entry=ENTRIES, prot=ENTRIES)
def test_special_survives_every_op(machine, entry, prot):
    ops = machine.ops
    for level in LEVELS:
        special = entry | SPECIAL
        for op in KEPT_BY:
            changed = _mkwrite(machine, level)(special) if op == "mkwrite" else getattr(ops, f"{level}_{op}")(special)
            assert changed & SPECIAL, (level, op)
        if ops.owners.get(f"{level}_modify") != "absent":
            assert getattr(ops, f"{level}_modify")(special, prot) & SPECIAL, level
        if level == "pte" or ops.owners[f"{level}_mkspecial"] == "arch":
            assert getattr(ops, f"{level}_special")(getattr(ops, f"{level}_mkspecial")(entry)) == 1


@given(pfn=PFNS, vm_flags=st.integers(0, 15), newer=st.integers(0, 15))
def test_a_pfn_survives_the_way_through_an_entry(machine, pfn, vm_flags, newer):
    ops = machine.ops
    prot, newprot = ops.vm_get_page_prot(vm_flags), ops.vm_get_page_prot(newer)
    for level in LEVELS:
        mask = {"pte": machine.arch.pfn_mask, "pmd": machine.arch.pmd_page_mask, "pud": machine.arch.pud_page_mask}
        expected = pfn & mask[level] >> 12
        entry = getattr(ops, f"pfn_{level}")(pfn, prot)
        if level != "pte":
            entry = getattr(ops, f"{level}_mkhuge")(entry)
        assert getattr(ops, f"{level}_pfn")(entry) == expected
        # Also through a change between PROT_NONE, whose address is stored inverted, and others.
        if ops.owners.get(f"{level}_modify") != "absent":
            assert getattr(ops, f"{level}_pfn")(getattr(ops, f"{level}_modify")(entry, newprot)) == expected
        assert getattr(ops, f"{level}_pgprot")(entry) & mask[level] == 0


@given(entry=ENTRIES)
def test_dirtiness_is_moved_and_never_lost(machine, entry):
    ops = machine.ops
    for level in LEVELS:
        dirty = getattr(ops, f"{level}_dirty")
        before = dirty(entry)
        assert dirty(getattr(ops, f"{level}_wrprotect")(entry)) == before
        assert dirty(_mkwrite(machine, level)(entry)) == before
        assert dirty(getattr(ops, f"{level}_mkdirty")(entry)) == 1
        assert dirty(getattr(ops, f"{level}_mkclean")(entry)) == 0


@given(entries=st.lists(st.tuples(ENTRIES, ENTRIES), min_size=1, max_size=20))
def test_arrays_answer_lane_by_lane_what_ints_answer(machine, entries):
    ops = machine.ops
    first = np.array([one for one, _ in entries], dtype=np.uint64)
    second = np.array([other for _, other in entries], dtype=np.uint64)
    for name, owner in ops.owners.items():
        on_the_side = name.startswith(("arch_", "has_", "track_", "untrack_", "pfnmap_", "io", "mem"))
        if owner == "absent" or on_the_side or name == "vm_get_page_prot":
            continue
        op = getattr(ops, name)
        if name.endswith(("mkwrite", "access_permitted")) and name != "pud_mkwrite":
            scalars, array = [op(one, 1) for one, _ in entries], op(first, 1)
        elif name.startswith("pfn_") or name.endswith(("_modify", "set_access_flags")):
            scalars, array = [op(*pair) for pair in entries], op(first, second)
        else:
            scalars, array = [op(one) for one, _ in entries], op(first)
        assert array.dtype == np.uint64, name
        assert array.tolist() == scalars, name
        assert all(0 <= value < 1 << 64 for value in scalars), name


def test_a_wrong_op_would_be_seen(vectors: Vectors, kernel: Kernel, monkeypatch):
    monkeypatch.setitem(vars(kernel.ops), "pmd_modify", lambda pmd, newprot: pmd)
    result = check_vectors(vectors, kernel)
    assert {one.helper for one in result.disagree} == {"pmd_modify"}
