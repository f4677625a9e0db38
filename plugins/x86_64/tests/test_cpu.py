"""The CPU: what it makes of an access, and how a refusal is reported."""

from __future__ import annotations

import pytest

from pfnmap import BadInput, LinkError
from pfnmap.vm_flags import VM_EXEC, VM_READ, VM_SHARED, VM_WRITE

# A clean, not yet accessed leaf of the BAR at 0x800000000, as a child has it after fork.
OLD = {"pte": 0x8000000800003217, "pmd": 0x8000000800000297, "pud": 0x8000000800000297}
RW, ACCESSED, DIRTY = 0x2, 0x20, 0x40


@pytest.mark.parametrize("level", OLD)
def test_an_access_marks_the_leaf(link, level):
    arch, leaf = link().arch, OLD[level]
    assert arch.mmu_access(level, leaf, False) == (leaf | ACCESSED, True)
    assert arch.mmu_access(level, leaf, True) == (leaf | ACCESSED | DIRTY, True)


@pytest.mark.parametrize(("level", "marked"), [("pte", 0), ("pmd", 0), ("pud", ACCESSED)])
def test_a_refused_write_marks_only_a_1g_leaf_accessed(link, level, marked):
    # Recorded: fuzz.pud.167 of 6.12.117 for the 1G leaf, the fuzz file of 6.1.192 for the 4K one.
    leaf = OLD[level] ^ RW
    assert link().arch.mmu_access(level, leaf, True) == (leaf | marked, False)


@pytest.mark.parametrize("leaf", [0xFFFF7C00003B0, 0x80000008000002B3])
def test_prot_none_and_kernel_leaves_are_refused(link, leaf):
    assert not link().arch.mmu_access("pud", leaf, False)[1]


def test_a_leaf_with_a_denied_protection_key_is_refused(link):
    leaf = 1 << 59 | OLD["pmd"]
    assert link().arch.mmu_access("pmd", leaf, False) == (leaf, False)
    assert link(pku=False).arch.mmu_access("pmd", leaf, False) == (leaf | ACCESSED, True)
    assert link().ops.pmd_access_permitted(leaf, 0) == 0
    assert link(pku=False).ops.pmd_access_permitted(leaf, 0) == 1


@pytest.mark.parametrize("write", [False, True])
def test_an_execute_only_vma_is_refused_by_its_protection_key(link, write):
    # Recorded: entry.pud.8G.vma_x, si_code 4 for both accesses.
    assert link().arch.access_error(VM_EXEC | VM_SHARED, write) == 4
    without_keys = link(pku=False).arch
    assert without_keys.access_error(VM_EXEC | VM_SHARED, write) == (2 if write else 0)


def test_other_refusals_are_access_errors(link):
    arch = link().arch
    assert arch.access_error(VM_SHARED, False) == 2
    assert arch.access_error(VM_SHARED | VM_READ, True) == 2
    assert arch.access_error(VM_SHARED | VM_READ | VM_EXEC, False) == 0
    assert arch.access_error(VM_SHARED | VM_WRITE, False) == 0


def test_a_cpu_without_accessed_and_dirty_does_not_exist(link):
    with pytest.raises(LinkError, match="hw_access_dirty"):
        link(hw_access_dirty=False)


@pytest.mark.parametrize("mask", ["0x3000000000000", "0x8", "many", 1 << 52])
def test_an_encryption_mask_is_one_address_bit(link, mask):
    with pytest.raises(BadInput, match="sme_mask"):
        link(config={"AMD_MEM_ENCRYPT": "y"}, sme_mask=mask)
