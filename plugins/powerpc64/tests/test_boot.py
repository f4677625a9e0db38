"""The two MMUs, the page sizes and the releases: what they change in geometry and bits.

Radix with 64K pages is pinned by the vectors; the rest is worked out by hand from asm/book3s/64/{radix,hash}-*.h.
"""

import pytest

from pfnmap import BadInput, Refused
from pfnmap.kernel import Kernel

HASH, SMALL = {"mmu": "hash"}, {"PPC_4K_PAGES": "y"}
SPECIAL, DEVMAP, LEAF, PRESENT = 0x400, 0x800, 1 << 62, 1 << 63


@pytest.mark.parametrize(
    ("cpu", "symbols", "walk", "task_size"),
    [
        ({}, {}, [("pgd", 39, 8192), ("pud", 30, 512), ("pmd", 21, 512), ("pte", 16, 32)], 1 << 52),
        ({}, SMALL, [("pgd", 39, 8192), ("pud", 30, 512), ("pmd", 21, 512), ("pte", 12, 512)], 1 << 46),
        (HASH, {}, [("pgd", 44, 256), ("pud", 34, 1024), ("pmd", 24, 1024), ("pte", 16, 256)], 1 << 52),
        (HASH, SMALL, [("pgd", 37, 512), ("pud", 28, 512), ("pmd", 21, 128), ("pte", 12, 512)], 1 << 46),
    ],
)
def test_mmu_and_page_size_decide_the_sizes_of_the_levels(link, cpu, symbols, walk, task_size):
    geometry = link(cpu, symbols).geometry
    assert [(level.name, level.shift, level.ptrs) for level in geometry.walk] == walk
    assert (geometry.shift("p4d"), geometry.ptrs("p4d")) == (walk[0][1], 1)
    assert geometry.task_size == task_size <= walk[0][2] << walk[0][1]


@pytest.mark.parametrize(
    ("cpu", "symbols", "entries"),
    [
        ({}, {}, (0x8000_0000_0001_0005, 0x8000_0000_0001_0009, 0x8000_0000_0001_0009)),
        ({}, SMALL, (0x8000_0000_0001_0009, 0x8000_0000_0001_0009, 0x8000_0000_0001_0009)),
        (HASH, {}, (0x8000_0000_0001_0000,) * 3),
        (HASH, SMALL, (0x8000_0000_0001_0000,) * 3),
    ],
)
def test_a_table_entry_of_radix_has_the_index_size_of_the_table(link, cpu, symbols, entries):
    ops = link(cpu, symbols).ops
    assert (ops.pmd_populate(0x10000), ops.pud_populate(0x10000), ops.p4d_populate(0x10000)) == entries


@pytest.mark.parametrize(
    ("cpu", "symbols", "culprit"),
    [
        ({"mmu": "nohash"}, {}, "mmu.*radix, hash"),
        ({"mmu": "radix"}, {"PPC_RADIX_MMU": "n"}, "PPC_RADIX_MMU"),
        (HASH, {"PPC_64S_HASH_MMU": "n"}, "PPC_64S_HASH_MMU"),
    ],
)
def test_a_machine_that_cannot_be_is_refused_by_name(link, cpu, symbols, culprit):
    with pytest.raises(BadInput, match=culprit):
        link(cpu, symbols)


@pytest.mark.parametrize(
    ("symbols", "pmd_shift"), [({}, 21), ({"PPC_RADIX_MMU": "n"}, 24), ({"PPC_RADIX_MMU_DEFAULT": "n"}, 24)]
)
def test_the_kernel_decides_where_the_cpu_has_both_mmus(link, symbols, pmd_shift):
    assert link(symbols=symbols).geometry.shift("pmd") == pmd_shift


# What hash keeps in entries


@pytest.mark.parametrize(
    ("cpu", "symbols", "ignored"),
    [
        ({}, {}, 0x180),
        ({}, SMALL, 0x180),
        (HASH, {}, 0x80_0000_0000_1040),
        (HASH, SMALL, 0x11E0_0000_0000_0040),
    ],
)
def test_an_empty_pte_may_hold_what_the_mmu_writes_back(link, cpu, symbols, ignored):
    ops = link(cpu, symbols).ops
    assert ops.pte_none(ignored) == 1
    assert [bit for bit in range(64) if not ops.pte_none(1 << bit)] == [b for b in range(64) if not ignored >> b & 1]


@pytest.mark.parametrize(("cpu", "symbols"), [({}, {}), ({}, SMALL), (HASH, {}), (HASH, SMALL)])
def test_modify_keeps_the_hash_tables_notes_under_either_mmu(link, cpu, symbols):
    ops = link(cpu, symbols).ops
    notes = 0x80_0000_0000_1040 if not symbols else 0x11E0_0000_0000_0040
    rpn = (1 << 53) - (1 << (12 if symbols else 16))
    kept = notes | rpn | LEAF | 0x780
    assert ops.pte_modify((1 << 64) - 1, 0) == kept
    assert ops.pmd_modify((1 << 64) - 1, 0) == kept | (0 if symbols else 0x2000)


@pytest.mark.parametrize(
    ("cpu", "symbols", "pmd", "pud"),
    [
        ({}, {}, 0x6000_0000_0000_00E0, 0x6000_0000_0000_00E0),
        (HASH, {}, 0xFFF, 0x3FFF),
        (HASH, {"TRANSPARENT_HUGEPAGE": "n"}, 0xFFF, 0x1FFF),
        (HASH, SMALL, 0xFFF, 0x3FF),
    ],
)
def test_an_entry_is_bad_where_it_has_bits_that_no_table_address_has(link, cpu, symbols, pmd, pud):
    ops = link(cpu, symbols).ops
    for bad, bits in ((ops.pmd_bad, pmd), (ops.pud_bad, pud)):
        assert [n for n in range(64) if bad(1 << n)] == [n for n in range(64) if bits >> n & 1]


# Huge leaves under hash


def test_hash_marks_its_huge_pages_and_deposits_a_table_for_each(link):
    ops = link(HASH).ops
    entry = ops.pfn_pmd(0x100, ops.vm_get_page_prot(0b1011))
    assert entry == PRESENT | LEAF | 0x2000 | 0x100_0000 | 0x106
    assert (ops.pmd_trans_huge(entry), ops.pmd_trans_huge(entry ^ 0x2000)) == (1, 0)
    assert ops.arch_needs_pgtable_deposit()
    assert not link().ops.arch_needs_pgtable_deposit()


def test_hash_with_64k_pages_promises_pud_leaves_and_has_none(link):
    """FINDINGS F18: pfn_pud is BUG() there."""
    kernel = link(HASH)
    assert kernel.config["ARCH_SUPPORTS_PUD_PFNMAP"] == "y"
    assert not kernel.ops.has_transparent_pud_hugepage()
    with pytest.raises(Refused, match="pfn_pud"):
        kernel.ops.pfn_pud(0, 0)
    assert kernel.ops.pud_trans_huge((1 << 64) - 1) == 0


def test_hash_with_4k_pages_has_no_huge_pages(link):
    ops = link(HASH, SMALL).ops
    assert not ops.has_transparent_hugepage()
    assert ops.pmd_trans_huge(PRESENT | LEAF) == 0
    with pytest.raises(Refused, match="pfn_pmd: BUG"):
        ops.pfn_pmd(0, 0)


def test_execute_only_is_readable_under_hash(link):
    assert link().ops.vm_get_page_prot(4) == PRESENT | 0x101
    assert link(HASH).ops.vm_get_page_prot(4) == PRESENT | 0x105


# Releases


def test_before_the_change_there_are_no_huge_pfnmaps(link):
    kernel = link(release="6.12.117")
    assert not kernel.pfnmap("pmd")
    assert not kernel.pfnmap("pud")
    ops = kernel.ops
    assert (ops.pmd_mkspecial(LEAF), ops.pmd_special(LEAF | SPECIAL), ops.pmd_pgprot(LEAF)) == (LEAF, 0, 0)


def test_since_the_change_both_huge_levels_hold_pfnmaps(link):
    kernel = link(release="7.1")
    assert kernel.pfnmap("pmd")
    assert kernel.pfnmap("pud")


@pytest.mark.parametrize(("release", "special", "devmap"), [("6.12.117", 0, DEVMAP), ("7.3.4", SPECIAL, 0)])
def test_modify_of_a_huge_leaf_keeps_special_and_devmap_by_release(link, release, special, devmap):
    ops = link(release=release).ops
    for level in ("pmd", "pud"):
        assert getattr(ops, f"{level}_modify")(SPECIAL | DEVMAP, 0) == special | devmap
    assert ops.pte_modify(SPECIAL | DEVMAP, 0) == SPECIAL | devmap


def test_without_transparent_huge_pages_nothing_is_one(link):
    kernel: Kernel = link(symbols={"TRANSPARENT_HUGEPAGE": "n"})
    ops = kernel.ops
    assert (ops.pmd_trans_huge(PRESENT | LEAF), ops.pud_trans_huge(PRESENT | LEAF)) == (0, 0)
    assert not ops.has_transparent_hugepage()
    with pytest.raises(Refused, match="pfn_pud"):
        ops.pfn_pud(0, 0)
