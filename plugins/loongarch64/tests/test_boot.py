"""What layout, release, configuration and CPU change. Values of the geometry are those of asm/pgtable.h, by hand."""

import pytest

from pfnmap import Refused
from pfnmap.kernel import Kernel
from pfnmap.mm.boot import boot
from pfnmap_loongarch64 import Loongarch64
from pfnmap_loongarch64.bits import PAGE_OFFSET

VALID, DIRTY, GLOBAL, PRESENT, WRITE, MODIFIED = 1 << 0, 1 << 1, 1 << 6, 1 << 7, 1 << 8, 1 << 9
DEVMAP, NO_READ = 1 << 59, 1 << 61
USER = PRESENT | 3 << 2
PTE, PMD, PUD, P4D = "invalid_pte_table", "invalid_pmd_table", "invalid_pud_table", "invalid_pud_table"


def link(release="7.3.4", cpu=None, **symbols):
    return Kernel.link(Loongarch64, given=symbols, defaults={"TRANSPARENT_HUGEPAGE": "y"}, release=release, cpu=cpu)


@pytest.mark.parametrize(
    ("layout", "walk", "task_bits"),
    [
        ("4KB_2LEVEL", [("pgd", 21), ("pte", 12)], 30),
        ("4KB_3LEVEL", [("pgd", 30), ("pmd", 21), ("pte", 12)], 39),
        ("4KB_4LEVEL", [("pgd", 39), ("pud", 30), ("pmd", 21), ("pte", 12)], 48),
        ("16KB_2LEVEL", [("pgd", 25), ("pte", 14)], 36),
        ("16KB_3LEVEL", [("pgd", 36), ("pmd", 25), ("pte", 14)], 47),
        ("64KB_2LEVEL", [("pgd", 29), ("pte", 16)], 42),
        ("64KB_3LEVEL", [("pgd", 42), ("pmd", 29), ("pte", 16)], 48),
    ],
)
def test_the_layout_decides_pages_levels_and_reach(layout, walk, task_bits):
    geometry = link(**{layout: "y"}).geometry
    page = walk[-1][1]
    assert [(level.name, level.shift, level.ptrs) for level in geometry.walk] == [(*w, 1 << (page - 3)) for w in walk]
    assert geometry.task_size == 1 << task_bits
    assert geometry.size("pmd") == geometry.PAGE_SIZE << (page - 3)


@pytest.mark.parametrize(("size", "levels"), [("4K", 4), ("16K", 3), ("64K", 3)])
@pytest.mark.parametrize("release", ["6.1.192", "6.12.117", "7.3.4"])
def test_a_page_size_alone_takes_the_layout_that_reaches_farthest(size, levels, release):
    geometry = Kernel.link(Loongarch64, page_size=size, release=release).geometry
    assert (geometry.PAGE_SIZE, len(geometry.walk)) == (int(size[:-1]) << 10, levels)


@pytest.mark.parametrize(
    ("layout", "holds"),
    [
        ("16KB_2LEVEL", {"pgd": PTE, "p4d": PTE, "pud": PTE, "pmd": PTE}),
        ("16KB_3LEVEL", {"pgd": PMD, "p4d": PMD, "pud": PMD, "pmd": PTE}),
        ("4KB_4LEVEL", {"pgd": PUD, "p4d": PUD, "pud": PMD, "pmd": PTE}),
    ],
)
def test_an_empty_slot_holds_the_address_of_the_shared_table_below(layout, holds):
    kernel = link(**{layout: "y"})
    assert {level: kernel.arch.empty(level) for level in holds} == {
        level: kernel.cpu[key] for level, key in holds.items()
    }


def test_a_slot_that_holds_0_is_not_empty():
    ops = link().ops
    assert [ops.pmd_none(0), ops.pmd_present(0), ops.pud_none(0), ops.pud_present(0)] == [0, 1, 0, 1]


def test_wrprotect_lost_what_the_page_walker_marked_until_it_was_fixed():
    """CVE-2026-72043: 6.12.97 has the fix."""
    written = USER | VALID | DIRTY | WRITE
    for ops, dirty in ((link("6.12.96").ops, 0), (link("6.12.97").ops, 1)):
        for level in ("pte", "pmd"):
            assert getattr(ops, f"{level}_dirty")(getattr(ops, f"{level}_wrprotect")(written)) == dirty


def test_devmap_left_the_helpers_and_what_modify_keeps():
    before, after = link("6.12.117").ops, link("7.3.4").ops
    assert before.pte_devmap(before.pte_mkdevmap(USER)) == 1
    assert (before.pte_modify(DEVMAP, 0), after.pte_modify(DEVMAP, 0)) == (DEVMAP, 0)
    assert after.owners["pte_mkdevmap"] == "absent"
    assert after.pte_devmap(DEVMAP) == 0


@pytest.mark.parametrize(("symbol", "mode"), [("n", 0), ("y", 2)])
def test_write_combining_is_uncached_unless_the_configuration_has_it(symbol, mode):
    assert link(ARCH_WRITECOMBINE=symbol).ops.pgprot_writecombine(USER | 1 << 4) == USER | mode << 4


@pytest.mark.parametrize(("by_hardware", "store"), [(True, VALID | DIRTY), (False, VALID | DIRTY | MODIFIED)])
def test_no_access_to_a_present_leaf_faults_for_its_marks(by_hardware, store):
    arch = link(cpu={"hw_access_dirty": by_hardware}).arch
    assert arch.mmu_access("pte", USER | WRITE, False) == (USER | WRITE | VALID, True)
    assert arch.mmu_access("pte", USER | WRITE, True) == (USER | WRITE | store, True)
    assert arch.mmu_access("pte", USER, True) == (USER, False)
    assert arch.mmu_access("pte", USER | NO_READ, False) == (USER | NO_READ, False)


def test_execute_alone_does_not_let_a_load_pass():
    arch = link().arch
    assert [arch.access_error(flags, False) for flags in (1, 2, 4)] == [0, 0, 2]


def test_without_transparent_huge_pages_pmds_answer_as_the_headers():
    ops = link(TRANSPARENT_HUGEPAGE="n").ops
    leaf = USER | VALID | DIRTY | GLOBAL
    assert [ops.pmd_trans_huge(leaf), ops.pmd_young(leaf), ops.pmd_dirty(leaf), ops.pmd_leaf(leaf)] == [0, 0, 0, 1]
    with pytest.raises(Refused, match="BUG"):
        ops.pmd_write(leaf)


def test_the_shared_tables_are_never_handed_out():
    """They are told here to be where a machine's first tables would be."""
    spots = [0x10_0000 + n * 0x4000 for n in range(1, 4)]
    cpu = dict(zip(("invalid_pte_table", "invalid_pmd_table"), (PAGE_OFFSET + spot for spot in spots), strict=False))
    machine = boot(link(cpu=cpu))
    handed_out = {machine.phys.alloc(0x4000) for _ in range(16)}
    assert not handed_out & set(spots[:2])
    assert spots[2] in handed_out
