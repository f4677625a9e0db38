"""The modes, the extensions and the releases: what they change in geometry and bits.

Constants of Sv48 are pinned by the vectors; those of Sv39 and Sv57 are asm/pgtable-64.h's, worked out by hand. The bits
of Svpbmt and Svrsw60t59b are those that the vector files name (`_PAGE_IO_SVPBMT`, ...) and pgtable-bits.h's.
"""

import pytest

from pfnmap import BadInput, Refused
from pfnmap.kernel import Kernel
from pfnmap.testing.vectors import check_vectors, machine_of

NOCACHE, IO, SOFT_DIRTY = 1 << 61, 1 << 62, 1 << 59
PTE, PMD, PUD = ("pte", 12, 512), ("pmd", 21, 512), ("pud", 30, 512)
MEM_SOFT_DIRTY = {"MEM_SOFT_DIRTY": "y"}


@pytest.mark.parametrize(
    ("mode", "walk", "p4d_shift", "task_bits"),
    [
        ("sv39", [("pgd", 30, 512), PMD, PTE], 30, 38),
        ("sv48", [("pgd", 39, 512), PUD, PMD, PTE], 39, 47),
        ("sv57", [("pgd", 48, 512), ("p4d", 39, 512), PUD, PMD, PTE], 39, 56),
    ],
)
def test_the_mode_decides_which_levels_are_walked(link, mode, walk, p4d_shift, task_bits):
    geometry = link({"mode": mode}).geometry
    assert [(level.name, level.shift, level.ptrs) for level in geometry.walk] == walk
    shifts = [geometry.shift(level) for level in ("pmd", "pud", "p4d", "pgd")]
    assert shifts == [21, 30, p4d_shift, walk[0][1]]
    assert {geometry.ptrs(level) for level in ("pte", "pmd", "pud", "p4d", "pgd")} == {512}
    assert geometry.task_size == 1 << task_bits


def test_a_folded_level_is_never_empty_and_its_populate_writes_nothing(link):
    ops = link({"mode": "sv39"}).ops
    for level in ("p4d", "pgd"):
        answers = [getattr(ops, f"{level}_{op}")(0) for op in ("none", "present", "bad")]
        assert answers == [0, 1, 0]
        assert getattr(ops, f"{level}_populate")(0x8000_0000) == 0
    assert ops.pud_none(0) == 1


def test_a_level_that_is_walked_has_tables(link):
    ops = link({"mode": "sv57"}).ops
    for level in ("p4d", "pgd"):
        entry = getattr(ops, f"{level}_populate")(0x8000_0000)
        assert entry == 0x2000_0001
        assert getattr(ops, f"{level}_pgtable")(entry) == 0x8000_0000
        assert [getattr(ops, f"{level}_{op}")(entry) for op in ("none", "present", "bad")] == [0, 1, 0]
        assert [getattr(ops, f"{level}_{op}")(0) for op in ("none", "present", "bad")] == [1, 0, 1]


def test_an_unknown_mode_is_refused_by_name(link):
    with pytest.raises(BadInput, match=r"sv32.*sv39, sv48, sv57"):
        link({"mode": "sv32"})


FOLDED = ("none", "present", "bad", "populate")
DIFFER = {
    # The P4D is folded, too, and half of the rows' tables lie past the 128G of the linear map.
    "sv39": {"constants", "p4d_index", "pgd_index", "pmd_populate", "pud_populate", *(f"p4d_{op}" for op in FOLDED)},
    "sv57": {"constants", "pgd_index", *(f"pgd_{op}" for op in FOLDED)},
}


@pytest.mark.parametrize("mode", DIFFER)
def test_modes_differ_in_the_upper_levels_and_in_how_far_the_linear_map_reaches(vectors, mode, link):
    """The rows of Sv48 hold in every mode, but for these helpers, and for each of these some do not."""
    machine = machine_of(vectors)._asdict()
    kernel = Kernel.link(**{**machine, "cpu": {**machine["cpu"], "mode": mode}})
    result = check_vectors(vectors, kernel)
    differ = {name for name, counts in result.helpers.items() if counts["rows"] != counts["agree"]}
    assert differ == DIFFER[mode]


@pytest.mark.parametrize(("mode", "bits"), [("sv39", 37), ("sv48", 46), ("sv57", 55)])
def test_a_table_past_the_linear_map_is_taken_for_one_in_the_kernels_image(link, mode, bits):
    # asm/page.h, __va_to_pa_nodebug: what is not below PAGE_OFFSET + KERN_VIRT_SIZE has va_kernel_pa_offset subtracted.
    kernel = link({"mode": mode})
    assert kernel.arch.linear_map == 1 << bits
    last, first = (1 << bits) - 0x1000, 1 << bits
    assert kernel.ops.pmd_populate(last) == last >> 2 | 1
    page_offset = {"sv39": 0xFFFFFFD600000000, "sv48": 0xFFFFAF8000000000, "sv57": 0xFF60000000000000}[mode]
    assert kernel.ops.pmd_populate(first) == ((page_offset + first) >> 12) << 10 | 1


# Svpbmt


@pytest.mark.parametrize("memory_type", [0, NOCACHE, IO, NOCACHE | IO])
def test_svpbmt_puts_the_memory_type_into_bits_61_and_62(link, memory_type):
    ops = link({"svpbmt": True}).ops
    prot = 0x57 | memory_type
    assert ops.pgprot_noncached(prot) == 0x57 | IO
    assert ops.pgprot_writecombine(prot) == 0x57 | NOCACHE
    assert ops.pgprot_device(prot) == 0x57 | IO


def test_svpbmt_lets_modify_replace_the_memory_type(link):
    entry = 0x1234_0000_0000_00D7 & ((1 << 54) - 1) | IO
    for level in ("pte", "pmd", "pud"):
        new = getattr(link({"svpbmt": True}).ops, f"{level}_modify")(entry, 0x53 | NOCACHE)
        assert new == entry ^ IO ^ 0x4 | NOCACHE
        without = getattr(link({"svpbmt": False}).ops, f"{level}_modify")(entry, 0x53)
        assert without == entry ^ 0x4


def test_svpbmt_is_unused_where_the_cpu_or_the_kernel_lacks_it(link):
    for kernel in (link({"svpbmt": False}), link({"svpbmt": True}, {"RISCV_ISA_SVPBMT": "n"})):
        assert kernel.ops.pgprot_noncached(0x57) == 0x57 == kernel.ops.pgprot_writecombine(0x57)


def test_a_pgprot_keeps_the_memory_type_and_no_pfn(link):
    ops = link().ops
    entry = ops.pmd_mkspecial(ops.pfn_pmd(0xFFF_FFFF_FE00, ops.pgprot_noncached(0x57)))
    assert entry == IO | 0xFFFFFFFFFE00 << 10 & (1 << 54) - 1 | 0x157
    assert ops.pmd_pgprot(entry) == IO | 0x157


# Svrsw60t59b


def test_svrsw60t59b_brings_soft_dirty_in_bit_59(link):
    ops = link({"svrsw60t59b": True}, MEM_SOFT_DIRTY).ops
    for level in ("pte", "pmd", "pud"):
        assert getattr(ops, f"{level}_mkdirty")(0x57) == 0xD7 | SOFT_DIRTY
        assert getattr(ops, f"{level}_modify")(0x57 | SOFT_DIRTY, 0x53) == 0x53 | SOFT_DIRTY
    for level in ("pte", "pmd"):
        assert getattr(ops, f"{level}_mksoft_dirty")(0x57) == 0x57 | SOFT_DIRTY
        assert getattr(ops, f"{level}_soft_dirty")(0x57 | SOFT_DIRTY) == 1
        assert getattr(ops, f"{level}_soft_dirty")(((1 << 64) - 1) ^ SOFT_DIRTY) == 0
    assert ops.pte_clear_soft_dirty(0x57 | SOFT_DIRTY) == 0x57


@pytest.mark.parametrize(
    ("cpu", "symbols"),
    [
        ({}, MEM_SOFT_DIRTY),
        ({"svrsw60t59b": True}, {}),
        ({"svrsw60t59b": True}, {"RISCV_ISA_SVRSW60T59B": "n"}),
    ],
)
def test_without_the_extension_in_both_cpu_and_kernel_there_is_no_soft_dirty(link, cpu, symbols):
    ops = link(cpu, symbols).ops
    assert ops.pte_mkdirty(0x57) == 0xD7
    assert ops.pte_mksoft_dirty(0x57) == 0x57
    assert ops.pte_soft_dirty((1 << 64) - 1) == 0


# Releases


def test_before_the_change_there_are_no_huge_pfnmaps(link):
    kernel = link(release="6.12.117")
    assert not kernel.pfnmap("pmd")
    assert not kernel.pfnmap("pud")
    with pytest.raises(Refused, match="pud_mkhuge"):
        kernel.ops.pud_mkhuge(0x57)
    assert (kernel.ops.pte_pgprot(0x57), kernel.ops.pmd_mkspecial(0x57)) == (0, 0x57)


@pytest.mark.parametrize(("release", "pud_bad_of_a_leaf"), [("6.15", 0), ("6.16", 1)])
def test_pmd_leaves_hold_pfnmaps_one_release_before_pud_leaves(link, release, pud_bad_of_a_leaf):
    kernel = link(release=release)
    assert kernel.pfnmap("pmd")
    assert kernel.pfnmap("pud") == bool(pud_bad_of_a_leaf)
    assert bool(kernel.ops.pud_bad(0x57)) == bool(pud_bad_of_a_leaf)
    assert kernel.ops.pmd_pgprot(0x57 | 0xABC << 10) == 0x57


def test_prot_write_brings_read_where_write_alone_is_a_shadow_stack(link):
    # VM_READ 1, VM_WRITE 2, VM_EXEC 4
    ops = link().ops
    assert [ops.arch_calc_vm_prot_bits(flags) for flags in range(8)] == [0, 0, 3, 3, 0, 0, 3, 3]
    assert [link(release="6.12.117").ops.arch_calc_vm_prot_bits(flags) for flags in range(8)] == [0] * 8


def test_without_transparent_huge_pages_nothing_is_a_huge_leaf(link):
    ops = link(symbols={"TRANSPARENT_HUGEPAGE": "n"}).ops
    assert (ops.pmd_trans_huge(0x57), ops.pud_trans_huge(0x57)) == (0, 0)
    # No leaf is ever split: only PRESENT and PROT_NONE make an entry present.
    assert [ops.pmd_present(entry) for entry in (0x1, 0x20, 0x2, 0xE)] == [1, 1, 0, 0]
