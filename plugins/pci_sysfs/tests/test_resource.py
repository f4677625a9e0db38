"""sysfs' BARs: what the res.* records do not show, expected by the sources of 6.12.117 and by what 7.2.12 has."""

from __future__ import annotations

from typing import Any

import pytest

from pfnmap import BadInput, Device, DeviceBar, Refused, Unknown
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.run import Run

MIB = 1 << 20
BASE = 0x1000_0000_0000
PHYS = 0xA6800_0000
CONFIG = {"TRANSPARENT_HUGEPAGE": "y"}


def machine(arch: str = "x86_64", release: str = "6.12.117", **bar: Any) -> Run:
    nic = Device("nic", "0000:03:00.0", {2: DeviceBar(2, 4 * MIB, PHYS, **bar)}, driver="pci_sysfs")
    return Run(Kernel.link(arch, ["pci_sysfs"], release=release, config=CONFIG), [nic])


def do(run: Run, op: str, at: int | None = None, **arguments: Any) -> dict[str, Any]:
    return run.step(Step(op, arguments, at=at, where=f"step {op}")).as_json()


def res_mmap(run: Run, **said: Any) -> dict[str, Any]:
    arguments = {"device": "nic", "bar": 2, "length": 4 * MIB, "addr": BASE, "fixed": True, "prot": "rw"}
    return do(run, "res_mmap", at=BASE, **{**arguments, "shared": True, **said})


def touch(run: Run, access: str, va: int = BASE) -> dict[str, Any]:
    return do(run, "touch", va=va, access=access)


def test_the_plain_mmap_of_a_device_maps_resource_n():
    run = machine()
    where = {"device": "nic", "bar": 2, "offset": MIB, "length": MIB, "addr": BASE, "fixed": True}
    got = do(run, "mmap", at=BASE, prot="rw", shared=True, **where)
    assert got["entry"]["value"] == hex(PHYS + MIB | 0x8000_0000_0000_0237)
    assert do(run, "vmas", start=BASE, end=BASE + MIB)["vmas"][0]["pgoff"] == PHYS + MIB >> 12


def test_remap_pfn_range_marks_the_vma_as_io_that_neither_grows_nor_is_dumped():
    """mm/memory.c of 6.12: what remap_pfn_range sets, nothing of it the driver's own."""
    run = machine()
    res_mmap(run)
    assert {"io", "pf", "de", "dd"} <= set(do(run, "smaps", va=BASE)["fields"]["VmFlags"])


def test_after_mprotect_and_back_the_first_write_faults_once_in_the_mm():
    """README of the recordings, F: entries stay 0x...235, a write faults once in the core."""
    run = machine()
    res_mmap(run)
    do(run, "mprotect", addr=BASE, length=4 * MIB, prot="r")
    got = do(run, "mprotect", addr=BASE, length=4 * MIB, prot="rw", at=BASE)
    assert int(got["entry"]["value"], 16) & 0xFFF == 0x235
    got = touch(run, "write")
    assert (got["handle_mm_fault"], got["faults"]) == (1, [])
    assert int(got["entry"]["value"], 16) & 0x2 == 0x2
    assert touch(run, "write")["handle_mm_fault"] == 0


def test_a_private_mapping_is_filled_read_only_and_copied_by_a_write():
    """README of the recordings, F: private 0x...235."""
    run = machine()
    assert int(res_mmap(run, shared=False)["entry"]["value"], 16) & 0xFFF == 0x235
    assert touch(run, "write")["entry"]["ram"]
    assert touch(run, "read", BASE + 0x1000)["entry"]["value"] == hex(PHYS + 0x1000 | 0x8000_0000_0000_0235)


@pytest.mark.parametrize(("arch", "code"), [("arm64", "ok"), ("powerpc64", "ok"), ("riscv64", "ENOENT")])
def test_resource_n_wc_exists_where_the_architecture_says_so(arch: str, code: str):
    assert res_mmap(machine(arch), wc=True, addr=0, fixed=False)["result"] == code


def test_resource_n_wc_exists_of_prefetchable_bars():
    assert res_mmap(machine(prefetchable=False), wc=True)["result"] == "ENOENT"
    assert res_mmap(machine(prefetchable=True), wc=True)["result"] == "ok"


def test_s390_has_such_files_from_6_16_on():
    assert res_mmap(machine("s390", "6.12.107"), addr=0, fixed=False)["result"] == "ENOENT"
    newer = machine("s390", "7.2.12")
    assert res_mmap(newer, addr=0, fixed=False)["result"] == "ok"
    with pytest.raises(Refused, match="s390"):
        res_mmap(newer, wc=True, addr=0, fixed=False)


def test_a_bar_that_is_not_there_has_no_file():
    assert res_mmap(machine(), bar=0)["result"] == "ENOENT"


def test_a_bar_smaller_than_a_page_maps_the_page_it_lies_in():
    run = Run(
        Kernel.link("x86_64", ["pci_sysfs"], release="6.12.117", config=CONFIG),
        [Device("nic", "0000:03:00.0", {0: DeviceBar(0, 256, 0xFEBF_8100)}, driver="pci_sysfs")],
    )
    got = res_mmap(run, bar=0, length=256)
    assert got["entry"]["value"] == hex(0xFEBF_8000 | 0x8000_0000_0000_0237)
    assert res_mmap(run, bar=0, length=4097)["result"] == "EINVAL"


def test_what_no_step_can_say_is_told():
    run = machine()
    with pytest.raises(Unknown, match="nci"):
        res_mmap(run, device="nci")
    with pytest.raises(BadInput, match="'q' is none of r, w, x"):
        res_mmap(run, prot="rq")
