"""What CPU and configuration change, and that the release changes nothing."""

from typing import Any

import pytest

from pfnmap.kernel import Kernel
from pfnmap.testing.vectors import check_vectors, machine_of
from pfnmap_sparc64 import Sparc64

VALID, VM_SHARED = 1 << 63, 8
PRESENT, WRITE, W, P, CP, CV, E = 1 << 4, 1 << 58, 1 << 6, 1 << 8, 1 << 10, 1 << 9, 1 << 11  # of sun4v


def link(cpu: dict[str, Any] | None = None, release: str = "7.3.4", **symbols: str) -> Kernel:
    return Kernel.link(Sparc64, given=symbols, defaults={"TRANSPARENT_HUGEPAGE": "y"}, release=release, cpu=cpu)


def test_pages_of_8k_four_levels_and_the_lower_half_of_user_space():
    geometry = link().geometry
    assert [(w.name, w.shift, w.ptrs) for w in geometry.walk] == [
        *(("pgd", 43, 1024), ("pud", 33, 1024), ("pmd", 23, 1024)),
        ("pte", 13, 1024),
    ]
    assert geometry.task_size == 0x800_0000_0000 - 0x1_0000_0000  # STACK_TOP64


def test_no_helper_differs_between_the_releases(vectors: dict[str, Any]):
    for release in ("6.12.117", "7.3.4"):
        machine = {**machine_of(vectors)._asdict(), "arch": Sparc64, "release": release}
        assert check_vectors(vectors, Kernel.link(**machine)).disagree == []


@pytest.mark.parametrize(
    ("cpu", "cache"),
    [({}, CP), ({"m7": False}, CP | CV), ({"sun4v": False}, 3 << 4), ({"sun4v": False, "m7": False}, 3 << 4)],
)
def test_an_m7_has_no_bit_for_the_virtual_cache(cpu: dict[str, Any], cache: int):
    plain = link(cpu).ops.vm_get_page_prot(1 | VM_SHARED)
    assert plain & (CP | CV if cpu.get("sun4v", True) else 3 << 4) == cache


def test_noncached_leaves_an_m7s_bit_9_alone():
    m7, older = link().ops, link({"m7": False}).ops
    assert (m7.pgprot_noncached(CP | CV), older.pgprot_noncached(CP | CV)) == (CV | E, E)


def test_what_is_not_accessed_is_not_valid_and_faults():
    kernel = link()
    leaf = kernel.ops.pfn_pte(1, kernel.ops.vm_get_page_prot(1 | 2 | VM_SHARED))
    old = kernel.ops.pte_mkold(leaf)
    assert [kernel.arch.mmu_access("pte", entry, False)[1] for entry in (leaf, old)] == [True, False]
    assert kernel.ops.pte_mkyoung(old) == leaf


def test_a_store_passes_once_the_leaf_is_writable_and_dirty():
    kernel = link()
    leaf = kernel.ops.pfn_pte(1, kernel.ops.vm_get_page_prot(1 | 2 | VM_SHARED))
    assert leaf & WRITE
    assert kernel.arch.mmu_access("pte", leaf, True) == (leaf, False)
    dirty = kernel.ops.pte_mkdirty(leaf)
    assert kernel.arch.mmu_access("pte", dirty, True) == (dirty, True)
    assert kernel.arch.mmu_access("pte", dirty | P, True) == (dirty | P, False)


def test_gup_fast_takes_no_user_page():
    ops = link().ops
    for vm_flags in range(16):
        leaf = ops.pte_mkdirty(ops.pfn_pte(1, ops.vm_get_page_prot(vm_flags)))
        assert [ops.pte_access_permitted(leaf, write) for write in (0, 1)] == [0, 0]
    assert ops.pte_access_permitted(PRESENT | P, 0) == 1


def test_write_alone_does_not_let_a_load_pass():
    arch = link().arch
    assert [arch.access_error(flags, False) for flags in (1, 2, 4)] == [0, 2, 0]


def test_without_transparent_huge_pages_pmds_answer_as_the_headers():
    kernel = link(TRANSPARENT_HUGEPAGE="n")
    leaf = (1 << 64) - 1
    ops = kernel.ops
    assert [ops.pmd_trans_huge(leaf), ops.pmd_young(leaf), ops.pmd_dirty(leaf)] == [0, 0, 0]
    assert [ops.pmd_leaf(leaf), ops.pmd_write(leaf), ops.pmd_pgprot(leaf)] == [1, 1, 0]
