"""What CPU and fault path make of a leaf. From the privileged specification and fault.c's access_error: not run."""

import pytest

from pfnmap.vm_flags import VM_EXEC, VM_READ, VM_SHARED, VM_WRITE

FLAGS = {"r": VM_READ, "w": VM_WRITE, "x": VM_EXEC}
V, R, W, X, U, A, D = (1 << n for n in (0, 1, 2, 3, 4, 6, 7))
NEW = V | R | W | U | A  # a writable leaf that nobody wrote to yet


@pytest.mark.parametrize(
    ("entry", "write", "after", "allowed"),
    [
        (NEW, False, NEW, True),
        (NEW, True, NEW | D, True),
        (NEW & ~A, False, NEW, True),
        (NEW & ~A, True, NEW | D, True),
        (NEW & ~W, True, NEW & ~W, False),
        (NEW & ~U, False, NEW & ~U, False),
        (NEW & ~V, False, NEW & ~V, False),
        (V | X | U, False, V | X | U, False),  # execute-only, MXR clear
        (V | W | U | A, True, V | W | U | A, False),  # reserved without shadow stacks
        (0x22, False, 0x22, False),  # PROT_NONE
    ],
)
def test_a_cpu_with_svadu_sets_accessed_and_dirty_where_it_allows_the_access(link, entry, write, after, allowed):
    assert link({"hw_access_dirty": True}).arch.mmu_access("pud", entry, write) == (after, allowed)


@pytest.mark.parametrize(
    ("entry", "write", "allowed"),
    [(NEW, False, True), (NEW, True, False), (NEW | D, True, True), (NEW & ~A, False, False)],
)
def test_a_cpu_without_svadu_faults_where_they_are_not_set(link, entry, write, allowed):
    assert link({"hw_access_dirty": False}).arch.mmu_access("pmd", entry, write) == (entry, allowed)


@pytest.mark.parametrize(
    ("prot", "write", "si_code"),
    [("r", 0, 0), ("w", 0, 0), ("x", 0, 2), ("rx", 0, 0), ("", 0, 2), ("r", 1, 2), ("rx", 1, 2), ("w", 1, 0)],
)
def test_a_vma_refuses_what_access_error_refuses(link, prot, write, si_code):
    flags = VM_SHARED | sum(FLAGS[letter] for letter in prot)
    assert link().arch.access_error(flags, bool(write)) == si_code
