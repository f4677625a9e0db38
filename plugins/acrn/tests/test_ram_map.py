"""acrn_vm_ram_map on pfnmaps: what the hypervisor is told, and every refusal. Worked out by hand from
drivers/virt/acrn/mm.c of 6.12.117 and 6.1.192: there is no recording."""

from __future__ import annotations

from typing import Any

import pytest

from pfnmap import BadInput, Device, DeviceBar, Refused
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.limits import bounded
from pfnmap.plugins import Registry
from pfnmap.run import Run
from pfnmap.testing.bar_driver import BarDriver
from pfnmap_acrn import Acrn

INSTALLED = Registry().names("arch")
x86_64 = pytest.mark.skipif("x86_64" not in INSTALLED, reason="ACRN runs on x86_64")
PAGE, MIB, GIB = 4096, 1 << 20, 1 << 30
BASE = 0x40_0000_0000
PHYS = 0x8_0000_0000
GPA = 0x1_0000_0000


class Machine:
    """A run whose process has a BAR of 4 GiB mapped and touched."""

    def __init__(
        self, release: str = "6.12.117", arch: str = "x86_64", length: int = 4 * GIB, prot: str = "rw"
    ) -> None:
        self.kernel = Kernel.link(arch, [BarDriver, Acrn], release=release, given={"TRANSPARENT_HUGEPAGE": "y"})
        self.run = Run(self.kernel, [Device("dev", "0000:00:01.0", {0: DeviceBar(0, 4 * GIB, PHYS)}, driver="kit_bar")])
        self.map(BASE, length, prot=prot)
        self("scan", start=BASE, end=BASE + length, step=PAGE if length < GIB else GIB, access="read")

    def map(self, va: int, length: int, offset: int = 0, prot: str = "rw") -> None:
        where = {"addr": va, "length": length, "fixed": True, "offset": offset}
        assert self("mmap", device="dev", bar=0, prot=prot, shared=True, **where)["result"] == "ok"

    def __call__(self, op: str, **arguments: Any) -> dict[str, Any]:
        return self.run.step(Step(op, arguments, where=f"step {op}")).as_json()

    def ram_map(self, va: int = BASE, length: int = 2 * MIB, access: str = "rw", gpa: int = GPA) -> dict[str, Any]:
        return self("acrn.ram_map", gpa=gpa, va=va, length=length, access=access)


@x86_64
@pytest.mark.parametrize("release", ["6.1.192", "6.12.117", "7.3.4"])
def test_every_page_is_looked_up_and_the_hypervisor_is_told_one_range(release: str):
    machine = Machine(release, length=8 * MIB)
    got = machine.ram_map(BASE + MIB, 2 * MIB)
    assert (got["result"], got["follow_returns"], got["faults"]) == ("ok", {"ok": 512}, [])
    assert got["regions"] == [{"gpa": hex(GPA), "hpa": hex(PHYS + MIB), "length": 2 * MIB, "access": "rw"}]


@x86_64
def test_pages_of_one_leaf_are_looked_up_one_by_one():
    assert Machine().ram_map(BASE + GIB, 4 * MIB)["calls"] == {"follow_pfnmap_start": 1024}


@x86_64
def test_what_is_not_a_whole_page_at_the_end_is_told_and_not_looked_at():
    got = Machine().ram_map(BASE, PAGE + 1)
    assert (got["regions"][0]["length"], got["calls"]) == (PAGE + 1, {"follow_pfnmap_start": 1})


@x86_64
def test_a_device_that_is_zapped_stays_mapped_in_the_virtual_machine():
    machine = Machine()
    machine.ram_map()
    machine("munmap", addr=BASE, length=4 * GIB)
    got = machine.ram_map()
    assert (got["result"], len(got["regions"])) == ("EFAULT", 1)


# refusals


@x86_64
@pytest.mark.parametrize("length", [0, PAGE - 1])
def test_less_than_a_page(length: int):
    got = Machine().ram_map(length=length)
    assert (got["result"], got["calls"]) == ("EINVAL", {})


@x86_64
def test_beyond_the_end_of_the_mapping_though_another_follows():
    machine = Machine(length=4 * MIB)
    machine.map(BASE + 4 * MIB, 4 * MIB, offset=4 * MIB)
    got = machine.ram_map(BASE + 2 * MIB, 2 * MIB + PAGE)
    assert (got["result"], got["calls"]) == ("EINVAL", {})
    assert machine.ram_map(BASE + 2 * MIB, 2 * MIB)["result"] == "ok"


@x86_64
def test_a_page_that_is_not_mapped_yet_is_not_faulted_in():
    machine = Machine(length=4 * MIB)
    machine("munmap", addr=BASE, length=4 * MIB)
    machine.map(BASE, 4 * MIB)
    machine("touch", va=BASE, access="read")  # the first 2M leaf, not the second
    got = machine.ram_map(BASE + MIB, 2 * MIB)
    assert (got["result"], got["follow_returns"], got["faults"]) == ("EINVAL", {"ok": 256, "EINVAL": 1}, [])


@x86_64
@pytest.mark.parametrize(("access", "result"), [("r", "ok"), ("rx", "ok"), ("rw", "EFAULT"), ("w", "EFAULT")])
def test_an_entry_that_is_not_writable(access: str, result: str):
    got = Machine(prot="r").ram_map(access=access)
    assert (got["result"], sum(got["follow_returns"].values())) == (result, 512 if result == "ok" else 1)


@x86_64
def test_page_frames_that_are_not_in_a_row():
    machine = Machine(length=4 * PAGE)
    vma = machine.run.parent.vma_lookup(BASE)
    assert vma is not None
    machine.run.machine.mm.zap_vma_ptes(vma, BASE + 2 * PAGE, PAGE)
    machine.run.machine.mm.insert_pfns(vma, BASE + 2 * PAGE, PHYS // PAGE + 7, PAGE, vma.vm_page_prot)
    got = machine.ram_map(length=4 * PAGE)
    assert (got["result"], got["follow_returns"]) == ("EINVAL", {"ok": 3})


@x86_64
@pytest.mark.parametrize("release", ["6.1.192", "6.12.117"])
def test_a_page_of_ram(release: str):
    machine = Machine(release, length=2 * PAGE)
    vma = machine.run.parent.vma_lookup(BASE)
    assert vma is not None
    machine.run.machine.mm.zap_vma_ptes(vma, BASE, PAGE)
    machine.run.machine.mm.insert_pfns(vma, BASE, machine.run.machine.phys.alloc_page() // PAGE, PAGE, vma.vm_page_prot)
    got = machine.ram_map(length=PAGE)
    assert (got["result"], got["follow_returns"]) == ("EFAULT", {"ok": 1})


@x86_64
def test_no_mapping_at_all():
    got = Machine().ram_map(BASE - MIB)
    assert (got["result"], got["calls"]) == ("EFAULT", {})


# what is not modelled, and mistakes


@x86_64
def test_ordinary_memory_is_refused():
    machine = Machine()
    machine("mmap", addr=BASE - MIB, length=PAGE, fixed=True, prot="rw", shared=False)
    with pytest.raises(Refused, match="memory at 0x3ffff00000 that is no pfnmap"):
        machine.ram_map(BASE - MIB, PAGE)


@x86_64
def test_access_in_letters_that_there_are_not():
    with pytest.raises(BadInput, match="access 'rz' has letters"):
        Machine().ram_map(access="rz")


@x86_64
def test_more_pages_than_are_simulated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pfnmap_acrn.mm.bounded", lambda what, pages: bounded(what, pages, 511))
    with pytest.raises(Refused, match=r"acrn.ram_map: 512 pages, where 511 are the most"):
        Machine().ram_map()


@pytest.mark.parametrize("arch", [arch for arch in INSTALLED if arch != "x86_64"])
def test_other_architectures_have_no_acrn(arch: str):
    with pytest.raises(Refused, match=f"ACRN runs on x86_64, this kernel is {arch}"):
        Machine("7.3.4", arch, length=MIB).ram_map(length=PAGE)
