"""What KVM answers where it does not map: the errno of memslots, what ends a guest's access, and what drops leaves."""

from __future__ import annotations

from typing import Any

import pytest
from test_levels import arm64, powerpc64, riscv64, x86_64
from virtual_machine import BASE, GIB, GPA, MIB, PAGE, PHYS, SIZE, Machine

from pfnmap import BadInput, Device, DeviceBar, Refused, VmFault, VmOperations
from pfnmap.kernel import Kernel
from pfnmap.limits import bounded
from pfnmap.run import Run
from pfnmap.testing.bar_driver import BarDriver
from pfnmap_kvm import Kvm

pytestmark = x86_64


@pytest.fixture
def machine() -> Machine:
    """A guest whose slot 0 is the BAR."""
    made = Machine()
    made.map()
    assert made.memslot() == "ok"
    return made


# KVM_SET_USER_MEMORY_REGION


@pytest.mark.parametrize(
    ("slot", "result"),
    [
        pytest.param({"length": PAGE + 1}, "EINVAL", id="size not of pages"),
        pytest.param({"gpa": GPA + 1}, "EINVAL", id="guest address not of a page"),
        pytest.param({"va": BASE + 1}, "EINVAL", id="address not of a page"),
        pytest.param({"va": 0x7FFF_FFFF_F000, "gpa": 0, "length": 2 * PAGE}, "EINVAL", id="beyond user space"),
        pytest.param({"slot": 32764}, "EINVAL", id="a slot number that KVM keeps"),
        pytest.param({"gpa": (1 << 64) - PAGE, "length": 2 * PAGE}, "EINVAL", id="guest addresses wrap"),
        pytest.param({"va": PAGE, "gpa": 1 << 50, "length": 1 << 43}, "EINVAL", id="2^31 pages"),
        pytest.param({"slot": 1, "length": 0}, "EINVAL", id="deleting what is not there"),
        pytest.param({"va": BASE + GIB}, "EINVAL", id="another address for a slot"),
        pytest.param({"length": GIB}, "EINVAL", id="another size for a slot"),
        pytest.param({"readonly": True}, "EINVAL", id="a slot becomes read-only"),
        pytest.param({"slot": 1, "gpa": GPA + SIZE - PAGE}, "EEXIST", id="another slot is there"),
        pytest.param({}, "ok", id="nothing changes"),
        pytest.param({"gpa": GPA + 1024 * GIB}, "ok", id="a slot moves"),
        pytest.param({"gpa": (1 << 46) - SIZE}, "ok", id="to the end of physical addresses"),
        pytest.param({"gpa": (1 << 46) - SIZE + PAGE}, "EINVAL", id="and beyond"),
        pytest.param({"log": True}, "ok", id="a dirty log is begun"),
        pytest.param({"slot": 32763, "gpa": GPA + SIZE}, "ok", id="the last slot, next to another"),
        pytest.param({"length": 0}, "ok", id="a slot is deleted"),
    ],
)
def test_errno_of_a_memslot(machine: Machine, slot: dict[str, Any], result: str):
    assert machine.memslot(**slot) == result


def test_a_virtual_machine_is_of_one_process(machine: Machine):
    machine("fork")
    assert machine("kvm.memslot", by="child", slot=1, gpa=0, va=BASE, length=PAGE)["result"] == "EIO"


@arm64
def test_arm64_keeps_no_dirty_log_of_a_pfnmap():
    machine = Machine("arm64")
    assert machine.memslot(log=True) == "ok"  # nothing is mapped there yet
    machine.map()
    assert machine.memslot(slot=1, gpa=0, log=True) == "EINVAL"
    assert machine.memslot(slot=1, gpa=0) == "ok"
    assert machine.guest(length=2 * MIB)["leaves"] == {"pte": 512}


@riscv64
@pytest.mark.parametrize(
    ("prot", "slot", "result"),
    [("r", {}, "EPERM"), ("r", {"readonly": True}, "ok"), ("rw", {"log": True}, "EINVAL"), ("rw", {}, "ok")],
)
def test_errno_of_a_memslot_on_riscv(prot: str, slot: dict[str, Any], result: str):
    machine = Machine("riscv64")
    machine.map(length=MIB, prot=prot)
    assert machine.memslot(length=MIB, **slot) == result


@powerpc64
def test_powerpc_has_no_read_only_slots():
    assert Machine("powerpc64", "7.3.4").memslot(readonly=True) == "EINVAL"


# a guest's accesses


@pytest.mark.parametrize(
    ("arch", "absent", "present"),
    [
        pytest.param("x86_64", "EFAULT", "MMIO", id="x86_64"),
        pytest.param("arm64", "EFAULT", "EFAULT", id="arm64", marks=arm64),
        pytest.param("powerpc64", "EFAULT", "EFAULT", id="powerpc64", marks=powerpc64),
    ],
)
def test_a_write_to_what_the_process_may_only_read(arch: str, absent: str, present: str):
    """Not there yet, the fault is refused; there, it is no fault any more but KVM_PFN_ERR_RO_FAULT."""
    machine = Machine(arch, "7.3.4")
    machine.map(prot="r")
    machine.memslot()
    got = machine.guest(length=PAGE, access="write")
    assert (got["result"], got["gpa"], got["calls"]["fixup_user_fault"]) == (absent, hex(GPA), 1)
    assert [run["writable"] for run in machine.guest(length=PAGE)["stage2"]] == [False]
    got = machine.guest(length=PAGE, access="write")
    assert got["result"] == present
    assert "fixup_user_fault" not in got["calls"]


@pytest.mark.parametrize("arch", ["x86_64", pytest.param("arm64", marks=arm64), pytest.param("riscv64", marks=riscv64)])
def test_a_write_to_a_read_only_slot_is_served_by_user_space(arch: str):
    machine = Machine(arch)
    machine.map()
    machine.memslot(readonly=True)
    assert [run["writable"] for run in machine.guest(length=PAGE)["stage2"]] == [False]
    got = machine.guest(length=PAGE, access="write")
    assert (got["result"], got["guest_faults"], got["calls"]) == ("MMIO", 1, {})


def test_where_there_is_no_slot_user_space_serves_the_access(machine: Machine):
    got = machine.guest(GPA + SIZE - GIB, 2 * GIB)
    assert (got["result"], got["gpa"], got["leaves"]) == ("MMIO", hex(GPA + SIZE), {"pud": 1})


def test_a_hole_in_the_process_fails_the_run(machine: Machine):
    machine("munmap", addr=BASE + GIB, length=PAGE)
    got = machine.guest(GPA + GIB, PAGE)
    assert (got["result"], got["calls"]) == ("EFAULT", {})


def test_memory_behind_a_slot_is_mapped_for_reads_as_the_zero_page_and_for_writes_as_a_page(machine: Machine):
    machine("mmap", addr=BASE, length=PAGE, fixed=True, prot="rw", shared=False)
    read = machine.guest(length=PAGE)
    assert (read["result"], read["handle_mm_fault"], read["stage2"][0]["writable"]) == ("ok", 1, False)
    written = machine.guest(length=PAGE, access="write")
    assert (written["result"], written["handle_mm_fault"], written["calls"]) == ("ok", 1, {})
    assert written["stage2"][0]["writable"] is True
    assert written["stage2"][0]["hpa"] != read["stage2"][0]["hpa"]


def test_a_copy_on_write_and_a_fork_take_memory_from_the_guest(machine: Machine):
    machine("mmap", addr=BASE, length=PAGE, fixed=True, prot="rw", shared=False)
    assert machine.guest(length=PAGE, access="write")["guest_faults"] == 1
    assert machine.guest(length=PAGE, access="write")["guest_faults"] == 0
    machine("fork")
    assert machine.guest(length=PAGE)["stage2"][0]["writable"] is False  # the page is shared with the child
    machine("touch", va=BASE, access="write")
    assert machine.guest(length=PAGE)["stage2"][0]["writable"] is True


def test_a_write_that_the_process_may_do_is_done_by_kvm_through_its_mapping():
    """clear_refs has first writes notified: the entry is read-only in a writable mapping (record clear_refs_4k)."""
    machine = Machine()
    machine.map(length=4 * PAGE)
    machine("clear_refs", value=4)
    machine.memslot(length=4 * PAGE)
    assert machine.guest(length=PAGE)["stage2"][0]["writable"] is False
    got = machine.guest(length=PAGE, access="write")
    assert (got["result"], got["handle_mm_fault"], got["stage2"][0]["writable"]) == ("ok", 1, False)
    got = machine.guest(length=PAGE, access="write")
    assert (got["result"], got["handle_mm_fault"], got["stage2"][0]["writable"]) == ("ok", 0, True)


def test_a_run_that_never_returns_holds_the_process():
    """FINDINGS F26, record clear_refs: the store through a large leaf faults for ever."""
    machine = Machine()
    machine.map()
    machine("clear_refs", value=4)
    machine.memslot()
    machine.guest(length=PAGE)
    got = machine.guest(length=PAGE, access="write")
    assert (got["result"], "guest_faults" in got) == ("HANG", False)
    with pytest.raises(Refused, match="the parent is in a system call that does not end"):
        machine.guest(length=PAGE)


class Slow(BarDriver):
    """Answers faults with what is in `answers` (RETRY: the lock was let go; NOPAGE: nothing is mapped), then maps."""

    name = "slow"
    answers = (0x400, 0x100)

    def mmap(self, file, vma):
        error = super().mmap(file, vma)
        answers = list(self.answers)
        vma.vm_ops = VmOperations(lambda vmf: answers.pop(0) if answers else self._map(vmf))
        return error

    def _map(self, vmf: VmFault) -> int:
        return self._fault(vmf, 0)


def test_a_fault_that_let_go_of_the_lock_is_tried_again_and_one_that_maps_nothing_fails():
    kernel = Kernel.link("x86_64", [Slow, Kvm], release="6.12.117")
    machine = Machine()
    machine.kernel = kernel
    machine.run = Run(kernel, [Device("dev", "0000:00:01.0", {0: DeviceBar(0, SIZE, PHYS)}, driver="slow")])
    machine.map()
    machine.memslot()
    got = machine.guest(length=PAGE)  # RETRY, at once followed by NOPAGE; found again by name, and no entry
    assert (got["result"], got["calls"]["hva_to_pfn_remapped"]) == ("ok", 2)
    kernel = Kernel.link("x86_64", [type("Never", (Slow,), {"answers": (0x100,) * 9}), Kvm], release="6.12.117")
    machine.run = Run(kernel, [Device("dev", "0000:00:01.0", {0: DeviceBar(0, SIZE, PHYS)}, driver="slow")])
    machine.map()
    machine.memslot()
    got = machine.guest(length=PAGE)
    assert (got["result"], got["follow_returns"]) == ("EFAULT", {"ok": 0, "EINVAL": 2})


# what drops leaves


@pytest.mark.parametrize(
    ("what", "arguments", "left"),
    [
        pytest.param("munmap", {"addr": BASE, "length": 2 * MIB}, 3, id="a part goes: its whole leaf"),
        pytest.param("munmap", {"addr": BASE, "length": SIZE}, 0, id="all goes"),
        pytest.param("mprotect", {"addr": BASE, "length": 2 * MIB, "prot": "r"}, 3, id="a part is protected"),
        pytest.param("clear_refs", {"value": 4}, 0, id="soft-dirty bits are cleared"),
        pytest.param("clear_refs", {"value": 1}, 4, id="accessed bits are cleared"),
        pytest.param("touch", {"va": BASE, "access": "write"}, 4, id="the process writes"),
        pytest.param("fork", {}, 4, id="a fork of a shared mapping"),
        pytest.param("smaps", {"va": BASE}, 0, id="smaps drops leaves (F5)"),
        pytest.param(
            "mremap",
            {"addr": BASE, "old_len": SIZE, "new_len": SIZE, "new_addr": BASE + 8 * GIB, "flags": ["MAYMOVE", "FIXED"]},
            0,
            id="the mapping moves",
        ),
    ],
)
def test_what_changes_entries_of_the_process_drops_the_guests(
    machine: Machine, what: str, arguments: dict[str, Any], left: int
):
    assert machine.guest()["leaves"] == {"pud": 4}
    machine(what, **arguments)
    assert machine("kvm.memslot", slot=9, gpa=0, va=BASE, length=PAGE)["leaves"] == ({"pud": left} if left else {})


def test_what_a_child_does_with_its_copy_does_not_matter(machine: Machine):
    machine.guest()
    machine("fork")
    machine("munmap", by="child", addr=BASE, length=SIZE)
    assert machine.guest()["guest_faults"] == 0


@pytest.mark.parametrize(("arch", "left"), [("x86_64", 0), pytest.param("arm64", 2048, marks=arm64)])
def test_x86_drops_everything_with_any_slot(arch: str, left: int):
    machine = Machine(arch)
    machine.map()
    machine.memslot()
    machine.memslot(slot=1, gpa=0)
    machine.guest()
    machine.memslot(slot=1, length=0)
    leaves = machine.guest(length=PAGE)
    assert leaves["guest_faults"] == (0 if left else 1)


def test_a_slot_that_moves_is_mapped_anew(machine: Machine):
    machine.guest()
    assert machine.memslot(gpa=GPA + 1024 * GIB) == "ok"
    assert machine.guest(length=PAGE)["result"] == "MMIO"
    assert machine.guest(GPA + 1024 * GIB)["guest_faults"] == 4


# mistakes of a scenario


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"access": "exec"}, BadInput, "kvm.map: access 'exec' is none of read, write, execute"),
        ({"length": 0}, BadInput, "kvm.map: length must be positive"),
    ],
)
def test_arguments_that_cannot_be(machine: Machine, arguments: dict[str, Any], error: type[Exception], text: str):
    with pytest.raises(error) as got:
        machine.guest(**arguments)
    assert str(got.value).endswith(text)


def test_a_guest_needs_memory_first():
    with pytest.raises(BadInput, match="no virtual machine yet"):
        Machine().guest()


@pytest.mark.parametrize(("arch", "result"), [("x86_64", "ok"), pytest.param("arm64", "EINVAL", marks=arm64)])
def test_the_second_address_space_is_x86s_and_the_guest_is_not_in_it(arch: str, result: str):
    machine = Machine(arch)
    machine.map()
    assert machine.memslot(slot=65536) == result
    assert machine.memslot(slot=1 << 17) == "EINVAL"
    machine.memslot(slot=1, gpa=0)
    assert machine.guest(length=PAGE)["result"] == "MMIO"


def test_more_leaves_than_a_step_may_have_are_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pfnmap_kvm.kvm.bounded", lambda what, count, unit: bounded(what, count, 2, unit))
    with pytest.raises(Refused, match=r"kvm.map: 3 faults, where 2 are the most"):
        machine.guest()


def test_that_a_page_is_in_no_slot_is_remembered_until_a_slot_changes():
    """As Debian's 6.12.117 did, asked by `pfnmap verify`: kvm_tdp_page_fault runs once for each state of the slots."""
    machine = Machine()
    nowhere = GPA + 4 * SIZE

    def faults(access: str = "read") -> int:
        got = machine.guest(nowhere, PAGE, access)
        assert got["result"] == "MMIO"
        return int(got["guest_faults"])

    machine.map()
    machine.memslot(1)
    assert (faults(), faults("write")) == (1, 0)
    assert machine.memslot(2, length=PAGE) == "EEXIST"
    assert faults() == 0
    machine.memslot(2, GPA + 2 * SIZE, length=PAGE)
    assert (faults(), faults()) == (1, 0)
    machine.memslot(1, log=True)
    assert (faults(), faults()) == (1, 0)
    machine.memslot(1, log=True)
    assert faults() == 0
    machine.memslot(4, nowhere)
    assert machine.guest(nowhere, PAGE)["result"] == "ok"
    machine.memslot(4, nowhere, length=0)
    assert (faults(), faults()) == (1, 0)
