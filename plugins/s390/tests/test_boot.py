"""What configuration, CPU and release make of a boot.

The expected values are those of arch/s390/include/asm/pgtable.h, worked out by hand; the vectors pin a CPU with the
no-execute facility only.
"""

import pytest

from pfnmap import BadInput
from pfnmap_s390 import S390

RO, RX, RW, RWX = 0x711, 0x611, 0x731, 0x631


def boot(changes: str = "", config: str = "TRANSPARENT_HUGEPAGE HUGETLB_PAGE MEM_SOFT_DIRTY", **cpu: object) -> S390:
    arch = S390()
    arch.setup_arch(dict.fromkeys(config.split(), "y"), {**arch.cpu_defaults, **cpu}, changes.split().__contains__)
    return arch


LOW, TIB = [("pmd", 20, 2048), ("pte", 12, 256)], 1 << 40


@pytest.mark.parametrize(
    ("end", "levels"),
    [
        (0, [("pgd", 31, 2048), *LOW]),
        (4 * TIB, [("pgd", 31, 2048), *LOW]),
        (4 * TIB + 1, [("pgd", 42, 2048), ("pud", 31, 2048), *LOW]),
        (1 << 53, [("pgd", 42, 2048), ("pud", 31, 2048), *LOW]),
        ((1 << 53) + 1, [("pgd", 53, 2048), ("p4d", 42, 2048), ("pud", 31, 2048), *LOW]),
    ],
)
def test_a_process_has_three_levels_and_more_once_it_maps_beyond_what_they_reach(end, levels):
    assert [(level.name, level.shift, level.ptrs) for level in boot().geometry.levels(end)] == levels


def test_user_space_is_nearly_all_and_a_stack_lies_below_4t():
    assert (boot().geometry.task_size, boot().geometry.stack_top) == (0xFFFF_FFFF_FFFF_F000, 4 * TIB)


def test_a_pte_table_has_2k_and_the_others_16k():
    geometry = boot().geometry
    assert [geometry.ptrs(level) * 8 for level in ("pte", "pmd", "pud")] == [2048, 16384, 16384]


def test_without_nx_an_older_kernel_clears_the_bit_as_it_makes_a_pte():
    with_nx, without = boot(), boot(nx=False)
    assert with_nx.protection_map == without.protection_map
    assert with_nx.pfn_pte(1, RO) == 0x1315
    assert without.pfn_pte(1, RO) == 0x1215
    assert without.pfn_pmd(0x100, RO) == with_nx.pfn_pmd(0x100, RO) == 0x100301


def test_without_nx_a_newer_kernel_has_it_in_no_protection():
    without = boot("s390-segment-software-bits", nx=False)
    assert set(without.protection_map) == {0x601, RX, RWX}
    assert without.pfn_pte(1, RO) == 0x1315
    # RO is RX there, and RW is no protection any more that a segment could be made of: it counts as RWX.
    assert without.pfn_pmd(0x100, RX) == 0x104201
    assert without.pfn_pmd(0x100, RWX) == without.pfn_pmd(0x100, RW) == 0x10C001
    assert without.pte_pgprot(0x1031) == 0x103D


def test_without_soft_dirty_tracking_the_bits_are_none():
    arch = boot(config="TRANSPARENT_HUGEPAGE")
    assert (arch.pte_mkdirty(0x400), arch.pmd_mkdirty(0x20)) == (0x408, 0x2020)
    assert (arch.pte_soft_dirty(0x2), arch.pte_mksoft_dirty(0x400)) == (0, 0x400)
    assert boot().pte_mkdirty(0x400) == 0x40A


def test_huge_page_helpers_come_with_huge_pages():
    assert boot().undefined == frozenset()
    assert boot(config="").undefined == {"pte_mkhuge", "pmdp_set_access_flags", "has_transparent_hugepage"}
    assert (boot().pmd_trans_huge(0x400), boot(config="").pmd_trans_huge(0x400)) == (1, 0)


def test_write_back_of_mio_is_a_bit_of_the_address_that_firmware_names():
    bit = 1 << 55
    arch = boot(mio=True, mio_wb_bit_mask=bit)
    assert arch.pgprot_writecombine(RW) == RW | bit
    assert arch.pte_pgprot(bit | 0x731) == bit | 0x13D
    assert boot(mio_wb_bit_mask=bit).pgprot_writecombine(RW) == RW


@pytest.mark.parametrize("mask", [-1, 1 << 64, True, "0x10"])
def test_a_mask_that_is_none_is_refused_by_name(mask):
    with pytest.raises(BadInput, match="mio_wb_bit_mask"):
        boot(mio=True, mio_wb_bit_mask=mask)
