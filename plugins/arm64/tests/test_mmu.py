"""What CPU and fault path make of a leaf, as recorded on real kernels with and without hardware flags."""

import pytest

from pfnmap.vm_flags import VM_EXEC, VM_READ, VM_SHARED, VM_WRITE
from pfnmap_arm64 import Arm64

FLAGS = {"r": VM_READ, "w": VM_WRITE, "x": VM_EXEC}


def vm_flags(prot: str) -> int:
    return VM_SHARED | sum(FLAGS[letter] for letter in prot if prot != "none")


@pytest.fixture(params=["a72", "n1"])
def cpu(request):
    return request.param


@pytest.fixture
def arch(cpu):
    arch = Arm64()
    config = {"ARM64_4K_PAGES": "y", "ARM64_VA_BITS": "48", "ARM64_PA_BITS": "48", "ARM64_HW_AFDBM": "y"}
    cpu_keys = {**arch.cpu_defaults, "hw_access_dirty": cpu == "n1"}
    arch.setup_arch(config, cpu_keys, lambda change: change == "arm64-present-invalid")  # of 6.12.117
    return arch


def touches(rows):
    for row in rows:
        if row["op"] == "touch":
            yield row["level"], int(row["before"], 16), row["argument"] == "write", row, int(row["after"], 16)


def test_the_cpu_faults_exactly_where_a_real_one_did(arch, recorded, cpu):
    for level, before, write, row, _ in touches(recorded[cpu]):
        no_fault = row["result"] == "ok" and row["handle_mm_fault"] == 0
        assert arch.mmu_access(level, before, write)[1] == no_fault, row


def test_the_cpu_leaves_the_entry_that_a_real_one_left(arch, recorded, cpu):
    for level, before, write, row, after in touches(recorded[cpu]):
        if row["handle_mm_fault"] == 0:
            assert arch.mmu_access(level, before, write)[0] == after, row


def test_set_access_flags_makes_of_a_faulting_leaf_what_the_kernel_made(arch, recorded):
    # handle_pte_fault, wp_page_reuse, touch_pmd: young, on a write dirty, then merged. Only the A72 faults.
    rows = [row for row in touches(recorded["a72"]) if row[3]["handle_mm_fault"] == 1]
    assert {row[0] for row in rows} == {"pte", "pmd"}
    for level, before, write, row, after in rows:
        entry = arch.pte_mkyoung(before)
        if write:
            entry = arch.pte_mkdirty(arch.pte_mkwrite_novma(entry) if level == "pte" else entry)
        merge = arch.ptep_set_access_flags if level == "pte" else arch.pmdp_set_access_flags
        assert merge(before, entry) == after, row


def test_mprotect_of_device_memory_modifies_leaves_as_recorded(arch, recorded, cpu):
    rows = [row for row in recorded[cpu] if row["op"] == "mprotect"]
    assert rows
    for row in rows:
        prot = arch.pgprot_noncached(arch.vm_get_page_prot(vm_flags(row["argument"])))
        modify = arch.pte_modify if row["level"] == "pte" else arch.pmd_modify
        assert modify(int(row["before"], 16), prot) == int(row["after"], 16), row


def test_an_access_outside_user_space_permissions_is_refused_and_changes_nothing(arch):
    kernel_only = 0x168008400000F8D & ~0x40
    for write in (False, True):
        assert arch.mmu_access("pmd", kernel_only, write) == (kernel_only, False)


@pytest.mark.parametrize(
    ("prot", "write", "si_code"),
    # do_page_fault: a store needs VM_WRITE; a load any of the three, execute too as there is no Enhanced PAN.
    [("r", 0, 0), ("w", 0, 0), ("x", 0, 0), ("none", 0, 2), ("r", 1, 2), ("rx", 1, 2), ("w", 1, 0)],
)
def test_a_vma_refuses_what_do_page_fault_refuses(prot, write, si_code):
    assert Arm64().access_error(vm_flags(prot), bool(write)) == si_code
