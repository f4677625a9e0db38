"""What release, configuration and CPU change, as the kernel's headers have it (Linux 6.1 and 6.12, arch/x86)."""

from __future__ import annotations

import pytest

from pfnmap import Refused

SHARED_RW = 0xB
DIRTY, RW, NX, SAVED_DIRTY = 0x40, 0x2, 1 << 63, 1 << 58
VM_SHADOW_STACK = 1 << 37


def test_four_levels_end_user_space_at_47_bits(link):
    geometry = link().geometry
    assert [(w.name, w.shift) for w in geometry.walk] == [("pgd", 39), ("pud", 30), ("pmd", 21), ("pte", 12)]
    assert geometry.task_size == 0x7FFFFFFFF000
    assert geometry.folded("p4d")


def test_five_levels_walk_the_p4d_and_end_user_space_at_56_bits(link):
    kernel = link(la57=True)
    assert [w.name for w in kernel.geometry.walk] == ["pgd", "p4d", "pud", "pmd", "pte"]
    assert (kernel.geometry.PGDIR_SHIFT, kernel.geometry.PTRS_PER_P4D) == (48, 512)
    assert kernel.geometry.task_size == 0xFFFFFFFFFFF000
    ops = kernel.ops
    assert (ops.pgd_present(0), ops.pgd_none(0), ops.pgd_bad(0)) == (0, 1, 1)
    table = ops.pgd_populate(0x1234000)
    assert table == 0x1234067
    assert (ops.pgd_present(table), ops.pgd_none(table), ops.pgd_bad(table)) == (1, 0, 0)
    assert ops.pgd_pfn(table) == 0x1234
    assert kernel.arch.pgd_pgtable(table) == 0x1234000


def test_la57_needs_five_compiled_levels(link):
    kernel = link(config={"PGTABLE_LEVELS": "4"}, la57=True)
    assert kernel.geometry.PGDIR_SHIFT == 39
    assert kernel.ops.owners["pgd_present"] == "generic"
    assert (kernel.ops.pgd_present(0), kernel.ops.pgd_populate(0x1000)) == (1, 0)


def test_page_table_isolation_makes_user_entries_of_the_top_table_no_execute(link):
    # Recorded with PTI: 0x8000000000000067 in the pgd, 0x67 below. __pti_set_user_pgtbl: not without NX.
    four, five = link(pti=True).ops, link(pti=True, la57=True).ops
    assert four.p4d_populate(0x1000) == NX | 0x1067
    assert four.p4d_bad(NX | 0x1067) == 0
    assert (five.pgd_populate(0x1000), five.p4d_populate(0x1000)) == (NX | 0x1067, 0x1067)
    assert five.pgd_bad(NX | 0x1067) == 0
    assert link(pti=True, nx=False).ops.p4d_populate(0x1000) == 0x1067
    assert link().ops.p4d_populate(0x1000) == 0x1067
    assert link().ops.pud_populate(0x1000) == 0x1067


def test_before_saved_dirty_a_read_only_entry_keeps_dirty(link):
    ops = link("6.1.192").ops
    assert ops.pte_wrprotect(DIRTY | RW) == DIRTY
    assert ops.pte_mkdirty(0) == DIRTY
    assert ops.pte_dirty(SAVED_DIRTY) == 0
    assert ops.pmd_mkwrite(SAVED_DIRTY, SHARED_RW) == SAVED_DIRTY | RW
    # Bit 58 was devmap's then.
    assert ops.pmd_mkdevmap(0) == SAVED_DIRTY
    assert ops.pte_devmap(SAVED_DIRTY) == 1


def test_before_huge_pfnmaps_huge_entries_have_no_special_bit(link):
    kernel = link("6.1.192")
    assert {kernel.ops.owners[f"{x}_{op}"] for x in ("pmd", "pud") for op in ("special", "mkspecial")} == {"generic"}
    with pytest.raises(Refused, match="pud_modify"):
        kernel.ops.pud_modify(0, 0)
    # pud_large asked for present too.
    assert (kernel.ops.pud_leaf(0x80), kernel.ops.pud_leaf(0x81)) == (0, 1)
    assert link().ops.pud_leaf(0x80) == 1


@pytest.mark.parametrize(("release", "dirty"), [("6.1.192", DIRTY), ("6.12.94", 0), ("6.12.117", SAVED_DIRTY)])
def test_a_2m_leaf_lost_dirty_to_mprotect_for_some_releases(link, release, dirty):
    # FINDINGS F24, and the fix's text: pte_modify and pud_modify never did.
    ops = link(release).ops
    prot = ops.vm_get_page_prot(0x9)
    assert ops.pmd_modify(0x80000008000002F7, prot) == 0x80000008000002B5 | dirty
    kept = DIRTY if release == "6.1.192" else SAVED_DIRTY
    assert ops.pte_modify(0x8000000800000277, prot) == 0x8000000800000235 | kept
    if release != "6.1.192":
        assert ops.pud_modify(0x80000008000002F7, prot) == 0x80000008000002B5 | SAVED_DIRTY


def test_devmap_bits_are_gone_with_their_removal(link):
    assert link().ops.pte_mkdevmap(0) == 1 << 57 | 0x200
    kernel = link("7.3.4")
    assert kernel.ops.owners["pmd_devmap"] == "generic"
    with pytest.raises(Refused, match="pte_mkdevmap"):
        kernel.ops.pte_mkdevmap(0)
    assert kernel.ops.pmd_trans_huge(1 << 57 | 0x80) == 1
    assert link().ops.pmd_trans_huge(1 << 57 | 0x80) == 0


def test_without_nx_present_entries_lose_the_bit(link):
    ops = link(nx=False).ops
    assert ops.vm_get_page_prot(SHARED_RW) == 0x27
    assert ops.pfn_pte(1, NX | 0x25) == 0x1025
    # A pgprot that is not present keeps it.
    assert ops.pfn_pmd(0, NX | 0x120) == NX | 0xFFFFFFFE00000 | 0x120


def test_soft_dirty_and_uffd_bits_follow_the_configuration(link):
    bits = 0xC00
    off = link(config={"MEM_SOFT_DIRTY": "n", "HAVE_ARCH_USERFAULTFD_WP": "n"}).ops
    on = link(config={"MEM_SOFT_DIRTY": "y", "HAVE_ARCH_USERFAULTFD_WP": "y"}).ops
    assert (off.pte_mkdirty(RW), on.pte_mkdirty(RW)) == (DIRTY | RW, 0x800 | DIRTY | RW)
    assert (off.pmd_modify(bits | 1, 1), on.pmd_modify(bits | 1, 1)) == (1, bits | 1)


@pytest.mark.parametrize("mask", [1 << 47, "0x800000000000", 1 << 51])
def test_the_encryption_bit_is_no_address_bit_and_in_every_protection(link, mask):
    enc = int(mask, 0) if isinstance(mask, str) else mask
    kernel = link(config={"AMD_MEM_ENCRYPT": "y"}, sme_mask=mask)
    ops = kernel.ops
    assert ops.vm_get_page_prot(SHARED_RW) == NX | enc | 0x27
    assert kernel.arch.protection_map[0] == enc | 0x120
    assert ops.pmd_populate(0x1000) == enc | 0x1067
    assert ops.pmd_bad(enc | 0x1067) == 0
    assert ops.pmd_bad(0x1067) == 1
    assert ops.pte_pfn(ops.pfn_pte(0x12345, enc | 0x25)) == 0x12345
    assert ops.pte_pgprot(ops.pfn_pte(0x12345, enc | 0x25)) == enc | 0x25
    assert link(sme_mask=mask, config={"AMD_MEM_ENCRYPT": "n"}).ops.pmd_populate(0x1000) == 0x1067


def test_vm_flags_carry_the_protection_key(link):
    key_5 = 5 << 32
    assert link().ops.vm_get_page_prot(key_5 | SHARED_RW) == 0x5 << 59 | NX | 0x27
    without = link(config={"X86_INTEL_MEMORY_PROTECTION_KEYS": "n"}).ops
    assert without.vm_get_page_prot(key_5 | SHARED_RW) == NX | 0x27


def test_shadow_stack_entries_are_read_only_and_dirty_and_count_as_writable(link):
    config = {"X86_USER_SHADOW_STACK": "y"}
    on, no_cpu = link(config=config, shadow_stack=True).ops, link(config=config).ops
    off = link(config={"X86_USER_SHADOW_STACK": "n"}, shadow_stack=True).ops
    assert on.pte_mkwrite(0x27, VM_SHADOW_STACK | SHARED_RW) == 0x65
    assert no_cpu.pmd_mkwrite(0xA5, VM_SHADOW_STACK | SHARED_RW) == 0xE5
    assert off.pte_mkwrite(0x25, VM_SHADOW_STACK | SHARED_RW) == 0x27
    assert (on.pte_write(0x65), no_cpu.pte_write(0x65), off.pte_write(0x65)) == (1, 0, 0)
    # A PMD only as a leaf, a PUD never.
    assert (on.pmd_write(0xE5), on.pmd_write(0x65), on.pud_write(0xE5)) == (1, 0, 0)
    # pte_modify leaves a shadow stack's dirty bit where it is.
    assert on.pte_modify(0x65, 0x25) == 0x65


def test_without_thp_nothing_is_transparent_huge(link):
    kernel = link(config={"TRANSPARENT_HUGEPAGE": "n"})
    assert kernel.ops.pmd_trans_huge(0x80) == 0
    assert kernel.ops.pud_trans_huge(0x80) == 0
    assert {kernel.ops.owners[op] for op in ("pmd_special", "pud_special", "pud_trans_huge")} == {"generic"}
    assert kernel.ops.pmd_leaf(0x80) == 1
