"""Who has requested a BAR and who maps it past drivers: memory types, revocation, iomem=relaxed.

The expected values are those of the cachemode.*, pat.* and res.* records of 6.12.117; of 7.3.4 what the recordings'
description says.
"""

from __future__ import annotations

from typing import Any

import pytest

from pfnmap import BadInput, Device, DeviceBar, Refused
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.run import Run

GIB, PAGE, PHYS = 1 << 30, 4096, 0xA_0000_0000
RES, VFIO = 0x1010_0000_0000, 0x1000_0000_0000


class Machine:
    """A 1G BAR that no driver has bound, and a kernel with IO_STRICT_DEVMEM or, as with iomem=relaxed, without."""

    def __init__(self, release: str = "6.12.117", *, strict: bool = True, driver: str = "pci_sysfs") -> None:
        given = {"TRANSPARENT_HUGEPAGE": "y", "MEM_SOFT_DIRTY": "y", "IO_STRICT_DEVMEM": "y" if strict else "n"}
        kernel = Kernel.link("x86_64", ["pci_sysfs", "vfio_pci"], release=release, given=given)
        bars = {0: DeviceBar(0, PAGE, 0xFEBF_8000), 2: DeviceBar(2, GIB, PHYS)}
        self.run = Run(kernel, [Device("gpu", "0000:00:06.0", bars, driver=driver)])

    def __call__(self, op: str, **arguments: Any) -> dict[str, Any]:
        return self.run.step(Step(op, arguments, where=f"step {op}")).as_json()

    def sysfs(self, va: int = RES, length: int = PAGE, **said: Any) -> dict[str, Any]:
        where = {"device": "gpu", "bar": 2, "addr": va, "fixed": True, "shared": True, "prot": "rw"}
        return self("res_mmap", length=length, **{**where, **said})

    def vfio(self, va: int = VFIO, length: int = GIB, **said: Any) -> dict[str, Any]:
        where = {"device": "gpu", "bar": 2, "addr": va, "fixed": True, "shared": True, "prot": "rw"}
        return self("mmap", length=length, **{**where, **said})

    def entry(self, va: int) -> tuple[str, str]:
        found = self("walk", va=va)["entry"]
        return found["level"], found["value"]

    def memtypes(self) -> list[str]:
        lines: list[str] = self("pat_memtype_list")["memtypes"]
        return [line.removeprefix("PAT: [mem 0x").replace("0000000", "") for line in lines]


@pytest.mark.parametrize(
    ("release", "at_open", "at_mmap"),
    [("6.12.117", 0, 1), ("7.3.4", 2, 2)],
)
def test_vfio_reserves_a_bar_at_its_first_mmap_or_all_at_open(release: str, at_open: int, at_mmap: int):
    machine = Machine(release)
    machine("vfio_attach", device="gpu")
    assert len(machine.memtypes()) == at_open
    assert machine.vfio()["result"] == "ok"
    assert len(machine.memtypes()) == at_mmap
    machine.vfio(VFIO + 2 * GIB)
    assert len(machine.memtypes()) == at_mmap
    machine("munmap", addr=VFIO, length=4 * GIB)
    machine("vfio_detach", device="gpu")
    assert machine.memtypes() == []


@pytest.mark.parametrize(("release", "kept"), [("6.12.117", False), ("7.3.4", True)])
def test_requesting_a_bar_takes_sysfs_mappings_away_for_good(release: str, kept: bool):
    """On 7.3.4 the reservation lives as long as the mapping, so its type spreads to the whole BAR."""
    machine = Machine(release)
    machine.sysfs(wc=True)
    machine("vfio_attach", device="gpu")
    machine.vfio()
    assert machine.entry(RES) == ("pte", "0x0")
    got = machine("touch", va=RES, access="read")
    assert (got["result"], got["si_code"], got["handle_mm_fault"]) == ("SIGBUS", 2, 2)
    assert any("write-combining" in line for line in machine.memtypes()) is kept
    machine("touch", va=VFIO, access="read")
    assert machine.entry(VFIO) == ("pud", "0x8000000a000002af" if kept else "0x8000000a000002b7")
    assert machine.sysfs(RES + GIB)["result"] == "EINVAL"
    devmem = {"device": "gpu", "bar": 2, "length": PAGE, "prot": "rw", "shared": True}
    assert machine("devmem_mmap", **devmem)["result"] == "EPERM"


def test_copies_of_a_private_mapping_go_too():
    machine = Machine()
    machine.sysfs(shared=False)
    machine("touch", va=RES, access="write")
    assert machine("request_region", device="gpu", bar=2, name="other")["result"] == "ok"
    assert machine.entry(RES) == ("pte", "0x0")
    assert machine("request_region", device="gpu", bar=2, name="another")["result"] == "EBUSY"


@pytest.mark.parametrize(
    ("release", "gigabyte", "small"),
    [("6.12.117", "0x8000000a000002b7", "0x8000000a002002af"), ("7.3.4", "0x8000000a000002af", "0x8000000a002002af")],
)
def test_write_combining_of_one_page_is_enough_for_the_whole_bar(release: str, gigabyte: str, small: str):
    """With iomem=relaxed. FINDINGS F13: 6.12.117 drops the type of a 1G leaf."""
    machine = Machine(release, strict=False)
    machine.sysfs(wc=True)
    machine("vfio_attach", device="gpu")
    machine.vfio()
    machine("touch", va=VFIO, access="read")
    assert machine.entry(VFIO) == ("pud", gigabyte)
    machine("munmap", addr=RES, length=PAGE)
    assert machine.sysfs(RES, 2 * PAGE)["result"] == "ok"
    machine.vfio(VFIO + 2 * GIB + (1 << 21), GIB)
    machine("touch", va=VFIO + 2 * GIB + (2 << 21), access="read")
    assert machine.entry(VFIO + 2 * GIB + (2 << 21)) == ("pmd", small)


def test_vfio_cannot_map_a_bar_of_two_types():
    machine = Machine(strict=False)
    machine.sysfs(wc=True)
    machine.sysfs(RES + GIB, offset=1 << 20)
    machine("vfio_attach", device="gpu")
    got = machine.vfio()
    assert got["result"] == "ENOMEM"
    assert got["messages"][-1] == "ioremap memtype_reserve failed -16"
    machine("munmap", addr=RES, length=PAGE)
    assert machine.vfio()["result"] == "ok"


def test_vfio_cannot_map_a_bar_that_another_driver_has():
    machine = Machine()
    machine("request_region", device="gpu", bar=2, name="other")
    machine("vfio_attach", device="gpu")
    assert machine.vfio()["result"] == "EBUSY"


def test_a_device_that_is_mapped_is_not_closed():
    machine = Machine()
    machine("vfio_attach", device="gpu")
    machine.vfio()
    with pytest.raises(Refused, match="gpu is mapped still"):
        machine("vfio_detach", device="gpu")


def test_only_what_was_attached_is_detached():
    machine = Machine(driver="vfio_pci")
    with pytest.raises(BadInput, match="bound by vfio-pci already"):
        machine("vfio_attach", device="gpu")
    with pytest.raises(BadInput, match="not bound by vfio_attach"):
        machine("vfio_detach", device="gpu")


@pytest.mark.parametrize(
    ("release", "said"),
    [("6.12.22", ["x86/PAT: init:1 freeing invalid memtype [mem 0xa00000000-0xa00000fff]"]), ("6.12.23", [])],
)
def test_a_failed_fork_gave_back_the_parents_reservation_until_6_12_23(release: str, said: list[str]):
    machine = Machine(release)
    machine.sysfs(shared=False)
    machine("touch", va=RES, access="write")
    assert machine("fork")["result"] == "ENOMEM"
    assert machine("munmap", addr=RES, length=PAGE).get("messages", []) == said


@pytest.mark.parametrize(("release", "left"), [("6.12.30", 1), ("6.12.31", 0)])
def test_a_mapping_that_moved_lost_its_reservation_until_6_12_31(release: str, left: int):
    machine = Machine(release)
    machine.sysfs()
    moved = {"new_addr": RES + GIB, "flags": ["MAYMOVE", "FIXED"]}
    machine("mremap", addr=RES, old_len=PAGE, new_len=PAGE, **moved)
    machine("munmap", addr=RES + GIB, length=PAGE)
    assert len(machine.memtypes()) == left


@pytest.mark.parametrize(("release", "moved", "calls"), [("6.12.117", 8, 1), ("7.3.4", 4, 1)])
def test_an_access_that_ends_past_the_mapping(release: str, moved: int, calls: int):
    machine = Machine(release)
    machine.sysfs()
    got = machine("access", via="proc_mem_read", va=RES + PAGE - 4, length=8)
    assert (got["ret"], got["calls"]["generic_access_phys"]) == (moved, calls)


@pytest.mark.parametrize(("release", "calls"), [("6.12.117", 1), ("7.3.4", 2)])
def test_an_access_over_two_pages_is_served_at_once_or_by_page(release: str, calls: int):
    machine = Machine(release)
    machine.sysfs(length=2 * PAGE)
    got = machine("access", via="ptrace_peek", va=RES + PAGE - 4, length=8)
    assert (got["ret"], got["calls"]["generic_access_phys"]) == (8, calls)


def test_dev_mem_is_mapped_cached_where_the_mtrrs_allow_it_unless_o_sync_asks_otherwise():
    """pat.dev_mem."""
    kernel = Kernel.link("x86_64", ["pci_sysfs"], release="6.12.117", cpu={"mtrr_write_back": True})
    machine = Machine.__new__(Machine)
    machine.run = Run(kernel, [Device("nic", "0000:00:02.0", {2: DeviceBar(2, 1 << 21, PHYS)}, driver="pci_sysfs")])
    where = {"device": "nic", "bar": 2, "length": PAGE, "prot": "rw", "shared": True, "fixed": True}
    machine("devmem_mmap", addr=RES, **where)
    assert machine.entry(RES) == ("pte", hex(PHYS | 0x8000_0000_0000_0227))
    got = machine("devmem_mmap", addr=RES + GIB, sync=True, **where)
    assert (got["result"], len(got["messages"])) == ("EAGAIN", 1)
