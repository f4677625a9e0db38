"""What CPU and fault path make of a leaf. From the Power ISA, hash_page_mm() and fault.c's access_error: not run."""

import pytest

from pfnmap import BadInput
from pfnmap.testing.vectors import machine_of
from pfnmap.vm_flags import VM_EXEC, VM_READ, VM_SHARED, VM_WRITE
from pfnmap_powerpc64 import Powerpc64

FLAGS = {"r": VM_READ, "w": VM_WRITE, "x": VM_EXEC}
PRESENT, LEAF, PRIVILEGED, R, C = 1 << 63, 1 << 62, 0x8, 0x100, 0x80
NEW = PRESENT | LEAF | R | 0x6  # a writable leaf that nobody wrote to yet


@pytest.mark.parametrize("mmu", ["radix", "hash"])
@pytest.mark.parametrize(
    ("entry", "write", "after", "allowed"),
    [
        (NEW, False, NEW, True),
        (NEW, True, NEW | C, True),
        (NEW & ~R, False, NEW, True),
        (NEW ^ 0x2, True, NEW ^ 0x2, False),
        (NEW ^ 0x4, False, NEW ^ 0x4, False),
        (NEW | PRIVILEGED, False, NEW | PRIVILEGED, False),
        (NEW & ~PRESENT, False, NEW & ~PRESENT, False),
        (NEW & ~0x6, False, NEW & ~0x6, False),  # PROT_NONE
    ],
)
def test_an_access_that_is_allowed_sets_reference_and_change(link, mmu, entry, write, after, allowed):
    assert link({"mmu": mmu}).arch.mmu_access("pmd", entry, write) == (after, allowed)


@pytest.mark.parametrize(
    ("entry", "write", "allowed"),
    [(NEW, False, True), (NEW, True, False), (NEW | C, True, True), (NEW & ~R, False, False)],
)
def test_a_radix_cpu_that_sets_nothing_faults_where_it_is_not_set(link, entry, write, allowed):
    assert link({"hw_access_dirty": False}).arch.mmu_access("pud", entry, write) == (entry, allowed)


@pytest.mark.parametrize(
    ("prot", "write", "si_code"),
    [("r", 0, 0), ("w", 0, 0), ("x", 0, 2), ("rx", 0, 0), ("wx", 0, 0), ("", 0, 2), ("r", 1, 2), ("w", 1, 0)],
)
def test_a_vma_refuses_what_access_error_refuses(link, prot, write, si_code):
    flags = VM_SHARED | sum(FLAGS[letter] for letter in prot)
    assert link().arch.access_error(flags, bool(write)) == si_code


@pytest.mark.parametrize(("cpu", "mask"), [({}, 0xFFF), ({"pte_table_size": 1}, 0)])
def test_with_64k_pages_hash_takes_bad_bits_from_the_size_of_a_pte_table(link, cpu, mask):
    # H_PMD_BAD_BITS is PTE_TABLE_SIZE - 1; hash__early_init_mmu makes it 4K: 256 entries, and as much for their slots.
    pmd_bad = link({"mmu": "hash", **cpu}).ops.pmd_bad
    table = PRESENT | 0x1234_0000
    assert [pmd_bad(table | 1 << n) for n in range(13)] == [mask >> n & 1 for n in range(13)]
    assert pmd_bad(table) == 0


def test_a_size_that_is_no_power_of_two_is_refused(link):
    with pytest.raises(BadInput, match=r"pte_table_size.*3 is no power of two"):
        link({"mmu": "hash", "pte_table_size": 3})


def test_golden_vectors_say_what_their_table_size_was():
    bits = {"PTE_TABLE_SIZE": "0x1", "PTE_FRAG_SIZE_SHIFT": "0x0", "a note": "of no number"}
    document = {
        "schema": "pfnmap-vectors/1",
        "arch": "powerpc64",
        "kernel": "6.12.117",
        "machine": {"cpu": {"mmu": "hash"}},
    }
    machine = machine_of({**document, "bits": bits, "constants": {}, "defined": {}, "vectors": {}}, arch=Powerpc64)
    assert machine.cpu == {"mmu": "hash", "hw_access_dirty": True, "pte_table_size": 1}
