"""Page size, address widths and levels that configuration and CPU make of a boot.

The expected values are those of PGTABLE_LEVELS in arch/arm64/Kconfig and of the macros in
asm/pgtable-hwdef.h, worked out by hand; vectors pin four of them, and recordings the names of the levels.
"""

from typing import Any

import pytest

from pfnmap import BadInput
from pfnmap_arm64 import Arm64


def boot(page: str, va_bits: int, pa_bits: int = 48, cpu: Any = None, changes: str = "") -> Arm64:
    arch = Arm64()
    config = {
        f"ARM64_{page}_PAGES": "y",
        "ARM64_VA_BITS": str(va_bits),
        "ARM64_PA_BITS": str(pa_bits),
        "ARM64_LPA2": "y" if pa_bits == 52 and page != "64K" else "n",
    }
    arch.setup_arch(config, {**arch.cpu_defaults, **(cpu or {})}, changes.split().__contains__)
    return arch


def walked(arch: Arm64) -> list[tuple[str, int, int]]:
    return [(level.name, level.shift, level.ptrs) for level in arch.geometry.walk]


PTE_4K, PTE_16K, PTE_64K = ("pte", 12, 512), ("pte", 14, 2048), ("pte", 16, 8192)
PMD_4K, PMD_16K, PMD_64K = ("pmd", 21, 512), ("pmd", 25, 2048), ("pmd", 29, 8192)
PUD_4K, PUD_16K = ("pud", 30, 512), ("pud", 36, 2048)


@pytest.mark.parametrize(
    ("page", "va_bits", "pa_bits", "cpu", "levels"),
    [
        ("4K", 39, 48, {}, [("pgd", 30, 512), PMD_4K, PTE_4K]),
        ("4K", 48, 48, {}, [("pgd", 39, 512), PUD_4K, PMD_4K, PTE_4K]),
        ("4K", 52, 52, {}, [("pgd", 39, 512), PUD_4K, PMD_4K, PTE_4K]),
        ("4K", 52, 52, {"lpa2": True}, [("pgd", 48, 16), ("p4d", 39, 512), PUD_4K, PMD_4K, PTE_4K]),
        ("16K", 36, 48, {}, [("pgd", 25, 2048), PTE_16K]),
        ("16K", 47, 48, {}, [("pgd", 36, 2048), PMD_16K, PTE_16K]),
        ("16K", 48, 48, {}, [("pgd", 47, 2), PUD_16K, PMD_16K, PTE_16K]),
        ("16K", 52, 52, {}, [("pgd", 36, 2048), PMD_16K, PTE_16K]),
        ("16K", 52, 52, {"lpa2": True}, [("pgd", 47, 32), PUD_16K, PMD_16K, PTE_16K]),
        ("64K", 42, 48, {}, [("pgd", 29, 8192), PTE_64K]),
        ("64K", 48, 52, {}, [("pgd", 42, 64), PMD_64K, PTE_64K]),
        ("64K", 52, 52, {}, [("pgd", 42, 1024), PMD_64K, PTE_64K]),
        ("64K", 52, 52, {"va_bits": 52}, [("pgd", 42, 1024), PMD_64K, PTE_64K]),
    ],
)
def test_the_levels_walked_follow_from_page_size_va_bits_and_cpu(page, va_bits, pa_bits, cpu, levels):
    assert walked(boot(page, va_bits, pa_bits, cpu)) == levels


@pytest.mark.parametrize(
    ("page", "va_bits", "pa_bits", "cpu", "task_bits"),
    [
        ("4K", 39, 48, {}, 39),
        ("4K", 52, 52, {}, 48),
        ("4K", 52, 52, {"lpa2": True}, 52),
        ("16K", 52, 52, {}, 47),
        ("16K", 52, 52, {"va_bits": 47}, 47),
        ("16K", 52, 52, {"lpa2": True, "va_bits": 52}, 52),
        ("64K", 52, 52, {}, 48),
        ("64K", 52, 52, {"va_bits": 52}, 52),
    ],
)
def test_user_space_is_as_large_as_the_address_bits_of_the_boot(page, va_bits, pa_bits, cpu, task_bits):
    assert boot(page, va_bits, pa_bits, cpu).geometry.task_size == 1 << task_bits


def test_a_folded_level_has_the_shift_of_the_pgd_and_one_entry():
    geometry = boot("16K", 36).geometry
    assert {geometry.PMD_SHIFT, geometry.PUD_SHIFT, geometry.P4D_SHIFT, geometry.PGDIR_SHIFT} == {25}
    assert (geometry.PTRS_PER_PMD, geometry.PTRS_PER_PUD, geometry.PTRS_PER_P4D) == (1, 1, 1)
    assert geometry.PTRS_PER_PGD == 2048


def test_folding_at_run_time_leaves_the_constants_of_the_build():
    with_lpa2, without = boot("4K", 52, 52, {"lpa2": True}).geometry, boot("4K", 52, 52).geometry
    assert with_lpa2.constants() == without.constants()
    assert with_lpa2.walk != without.walk


@pytest.mark.parametrize(
    ("page", "va_bits", "pa_bits", "cpu", "culprit"),
    [
        ("8K", 48, 48, {}, "ARM64_4K_PAGES"),
        ("4K", 47, 48, {}, "ARM64_VA_BITS"),
        ("64K", 39, 48, {}, "ARM64_VA_BITS"),
        ("4K", 48, 40, {}, "ARM64_PA_BITS"),
        ("4K", 48, 48, {"va_bits": 52}, "va_bits"),
        ("4K", 48, 48, {"va_bits": "48 bits"}, "va_bits"),
        ("4K", 52, 52, {"va_bits": 52}, "LPA2"),
        ("16K", 52, 52, {"va_bits": 47, "lpa2": True}, "LPA2"),
    ],
)
def test_a_machine_that_cannot_be_is_refused_by_name(page, va_bits, pa_bits, cpu, culprit):
    with pytest.raises(BadInput, match=culprit):
        boot(page, va_bits, pa_bits, cpu)


def test_levels_that_the_build_folds_leave_their_helpers_to_the_generic_headers():
    upper = {f"{level}_{op}" for level in ("p4d", "pgd") for op in ("none", "present", "bad", "populate")}
    assert not upper & boot("4K", 52, 52).undefined
    assert upper & boot("16K", 52, 52).undefined == {name for name in upper if name.startswith("pgd")}
    assert upper <= boot("64K", 52, 52).undefined


def test_a_level_folded_at_run_time_is_never_empty_and_its_populate_writes_nothing():
    arch = boot("16K", 52, 52)
    assert (arch.p4d_none(0), arch.p4d_present(0), arch.p4d_bad(0), arch.p4d_populate(0x4000)) == (0, 1, 0, 0)


def test_with_two_levels_the_pud_is_never_empty_and_its_populate_writes_nothing():
    # asm-generic/pgtable-nopmd.h
    arch = boot("64K", 42)
    assert (arch.pud_none(0), arch.pud_present(0), arch.pud_bad(0), arch.pud_leaf(0x1)) == (0, 1, 0, 0)
    assert arch.pud_populate(0x10000) == 0


@pytest.mark.parametrize(
    ("page", "pa_bits", "cpu", "entry"),
    [
        # Bits 51:50 of a physical address go to 9:8 with LPA2, bits 51:48 to 15:12 with 64K pages.
        ("4K", 52, {"lpa2": True}, 0x3_0000_0000_0300),
        ("16K", 52, {"lpa2": True}, 0x3_0000_0000_0300),
        ("64K", 52, {"va_bits": 52}, 0x3_0000_0000_F000),
    ],
)
def test_the_highest_bits_of_a_52_bit_address_move(page, pa_bits, cpu, entry):
    arch = boot(page, 52, pa_bits, cpu)
    shift = arch.geometry.PAGE_SHIFT
    pfn = 0xF_0000_0000_0000 >> shift
    # The low address field reaches to bit 49, so that bits 49:48 also stay where they are.
    assert arch.pfn_pte(pfn, 0) == entry
    assert arch.pte_pfn(entry) == pfn
    assert arch.pte_pgprot(entry) == 0


def test_lpa2_takes_the_shareability_out_of_every_protection():
    assert all(prot & 0x300 == 0 for prot in boot("16K", 52, 52, {"lpa2": True}).protection_map)
    assert all(prot & 0x300 == 0x300 for prot in boot("16K", 52, 52).protection_map)


def test_a_kernel_built_without_hardware_flags_does_not_use_them():
    arch = Arm64()
    config = {"ARM64_4K_PAGES": "y", "ARM64_VA_BITS": "48", "ARM64_PA_BITS": "48", "ARM64_HW_AFDBM": "n"}
    arch.setup_arch(config, arch.cpu_defaults, lambda change: False)
    assert arch.mmu_access("pmd", 0x168008400000BCD, write=False) == (0x168008400000BCD, False)


def test_the_pud_draft_brings_the_pud_helpers():
    draft = {f"pud_{op}" for op in ("dirty", "mkold", "mkdirty", "mkwrite", "wrprotect", "modify", "trans_huge")}
    assert draft <= boot("4K", 48).undefined
    assert not draft & boot("4K", 48, changes="arm64-pud-pfnmap").undefined


def test_cache_mode_of_a_leaf_is_the_memory_type_of_its_protection() -> None:
    """By the names of arch/arm64/include/asm/memory.h."""
    arch = boot("4K", 48)
    plain = arch.vm_get_page_prot(3)
    said = [
        arch.cache_mode("pmd", 1 << 30 | op(plain))
        for op in (int, arch.pgprot_writecombine, arch.pgprot_device, arch.pgprot_noncached)
    ]
    assert said == ["Normal", "Normal-NC", "Device-nGnRE", "Device-nGnRnE"]


@pytest.mark.parametrize(
    ("changes", "recorded"),
    [("", 0x0560_0084_0020_2F8E), ("arm64-present-invalid", 0x0160_0084_0020_2F8E)],
    ids=["6.1.192", "6.12.117"],
)
def test_a_page_that_nobody_may_access_stays_present_by_the_bit_of_its_release(changes: str, recorded: int) -> None:
    """The entry of 6.1.192 is what `pfnmap verify` read on Debian's."""
    arch = boot("4K", 48, changes=changes)
    device = 0b011 << 2  # of the memory type, which mprotect keeps
    old = arch.pfn_pte(0x8400202, arch.protection_map[0b1011] | device) | 1 << 56
    none = arch.pte_modify(old, arch.protection_map[0b1000] | device)
    assert hex(none) == hex(recorded)
    assert (arch.pte_present(none), arch.pte_present(none & ~(1 << 58 | 1 << 11))) == (1, 0)
    assert arch.pte_modify(none, arch.protection_map[0b1011] | device) == old
