"""nvgrace-gpu: what mmap fills and refuses, which leaves faults make, and bad pages; expected by the source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pfnmap import Device, DeviceBar, Refused, Unknown
from pfnmap.contract.step import Step
from pfnmap.contract.vma import MmStruct
from pfnmap.kernel import Kernel
from pfnmap.mm.boot import boot
from pfnmap.mm.mmap import do_mmap
from pfnmap.run import Run

PAGE = 4096
MIB = 1 << 20
GIB = 1 << 30
BASE = 0x1000_0000_0000
PHYS = 0x4200_0000_0000
CONFIG = {"TRANSPARENT_HUGEPAGE": "y"}
OLD, NEW = "6.12.117", "7.3.4"


class Machine:
    """A run with one GPU: 6 of 8 MiB behind BAR 4, 2 MiB behind BAR 2, and a BAR 0 of its own."""

    def __init__(self, release: str, *, phys: int = PHYS, reset: bool = False, bars: Mapping[int, Any] | None = None):
        self.kernel = Kernel.link("x86_64", ["nvgrace_gpu"], release=release, config=CONFIG)
        found = {
            0: DeviceBar(0, 16 * MIB, 0x8000_0000),
            2: DeviceBar(2, 2 * MIB, phys + GIB),
            4: DeviceBar(4, 8 * MIB, phys, memory=6 * MIB),
        }
        device = Device("gpu", "0009:01:00.0", found if bars is None else bars, reset_works=reset, driver="nvgrace_gpu")
        self.run = Run(self.kernel, [device])

    def __call__(self, op: str, **arguments: Any) -> dict[str, Any]:
        at = arguments.pop("at", None)
        return self.run.step(Step(op, arguments, at=at, where=f"step {op}")).as_json()

    def map(self, bar: int = 4, offset: int = 0, length: int = 6 * MIB, *, shared: bool = True) -> dict[str, Any]:
        where = {"device": "gpu", "bar": bar, "offset": offset, "addr": BASE + offset, "length": length}
        return self("mmap", prot="rw", shared=shared, fixed=True, **where)

    def touch(self, offset: int, access: str = "read") -> dict[str, Any]:
        return self("touch", va=BASE + offset, access=access)


def test_mmap_fills_the_whole_mapping_and_a_touch_faults_no_more():
    machine = Machine(OLD)
    assert machine.map()["result"] == "ok"
    vma = machine.run.parent.vma_lookup(BASE)
    assert vma is not None
    assert vma.vm_pgoff == PHYS >> 12
    got = machine.touch(5 * MIB)
    assert (got["result"], got["faults"], got["entry"]["level"]) == ("ok", [], "pte")
    assert int(got["entry"]["value"], 16) & 0xF_FFFF_FFFF_F000 == PHYS + 5 * MIB


def test_a_fault_makes_the_leaf_of_the_block_and_pages_where_it_does_not_fit():
    machine = Machine(NEW)
    machine.map(length=5 * MIB)
    assert machine.touch(MIB + 0x123)["entry"]["level"] == "pmd"
    got = machine.touch(4 * MIB)  # the block ends beyond the vma
    assert (got["entry"]["level"], {f["ret"] for f in got["faults"]}) == ("pte", {"FALLBACK", "NOPAGE"})


def test_a_pfn_that_is_not_aligned_falls_back():
    machine = Machine(NEW, phys=PHYS + PAGE)
    machine.map(length=4 * MIB)
    assert machine.touch(0)["entry"]["level"] == "pte"


def test_the_rest_is_uncached_and_the_memory_cached():
    for release in (OLD, NEW):
        machine = Machine(release)
        machine.map(2, length=PAGE)
        cached = machine.run.parent.vma_lookup(BASE)
        assert cached is not None
        mode = cached.vm_page_prot & 0x98  # _PAGE_PAT, _PAGE_PCD, _PAGE_PWT
        machine.map(4, length=PAGE)
        usable = machine.run.parent.vma_lookup(BASE)
        assert usable is not None
        assert (mode, usable.vm_page_prot & 0x98) == (0x8, 0)


@pytest.mark.parametrize("release", [OLD, NEW])
@pytest.mark.parametrize(
    ("bar", "offset", "length", "result"),
    [
        pytest.param(4, 0, 6 * MIB, "ok", id="all of the memory"),
        pytest.param(4, 0, 6 * MIB + PAGE, "EINVAL", id="beyond the memory, within the BAR"),
        pytest.param(4, 6 * MIB, PAGE, "EINVAL", id="behind the memory"),
        pytest.param(4, 8 * MIB, PAGE, "EINVAL", id="behind the BAR"),
        pytest.param(2, 2 * MIB - PAGE, 2 * PAGE, "EINVAL", id="beyond the uncached rest"),
    ],
)
def test_what_can_be_mapped(release: str, bar: int, offset: int, length: int, result: str):
    assert Machine(release).map(bar, offset, length)["result"] == result


def test_a_gpu_without_usable_memory_maps_nothing_of_it():
    machine = boot(Kernel.link("x86_64", ["nvgrace_gpu"], release=OLD, config=CONFIG))
    driver: Any = machine.modules["nvgrace_gpu"]
    file = driver.probe(Device("gpu", "0009:01:00.0", {}, driver="nvgrace_gpu"))
    at = driver.mmap_offset(4, 0)
    assert do_mmap(MmStruct(machine), file, BASE, PAGE, 0, at, fixed=True, shared=True) == -22


def test_the_device_s_own_bars_are_refused_by_name():
    with pytest.raises(Refused, match="region 0 is left to vfio-pci"):
        Machine(OLD).map(0, length=PAGE)
    with pytest.raises(Refused, match="region 2 is left to vfio-pci"):
        Machine(OLD, bars={2: DeviceBar(2, 0, PHYS), 4: DeviceBar(4, MIB, PHYS)}).map(2, length=PAGE)


def test_a_private_mapping_is_copied_page_by_page():
    machine = Machine(OLD)
    assert machine.map(shared=False)["result"] == "ok"
    assert machine.touch(MIB, "write")["entry"]["ram"]
    assert machine("vm_normal_page", va=BASE + MIB)["page"] == "ram"
    assert machine("vm_normal_page", va=BASE + MIB + PAGE)["page"] == "none"


def test_a_private_mapping_with_faults_is_a_bug():
    machine = Machine(NEW)
    assert machine.map(shared=False)["result"] == "ok"
    assert machine.touch(0)["result"] == "OOPS"


def test_decode_off_zaps_what_is_mapped_by_its_offset_only():
    machine = Machine(NEW)
    machine.map()
    machine.touch(0)
    assert machine("memory_decode", device="gpu", enabled=False)["command"] == "0x1"
    assert machine.touch(0)["result"] == "SIGBUS"
    machine("memory_decode", device="gpu", enabled=True)
    assert machine.touch(0)["result"] == "ok"
    for phys, result in ((PHYS, "ok"), (0x100_0000_0000, "SIGBUS")):
        machine = Machine(OLD, phys=phys)
        machine.map()
        machine("memory_decode", device="gpu", enabled=False)
        assert machine.touch(0)["result"] == result


def test_a_gpu_that_is_not_ready_after_a_reset_is_sigbus():
    machine = Machine(NEW, reset=True)
    machine.map()
    machine.touch(0)
    for ready, result in ((False, "SIGBUS"), (True, "ok")):
        assert machine("gpu_reset", device="gpu", ready=ready)["result"] == "ok"
        assert machine.touch(0)["result"] == result


def test_a_device_that_cannot_be_reset_is_einval_and_one_that_there_is_not_is_named():
    assert Machine(NEW)("gpu_reset", device="gpu")["result"] == "EINVAL"
    with pytest.raises(Unknown, match="device 'gpux'"):
        Machine(NEW)("gpu_reset", device="gpux")


@pytest.mark.parametrize(
    ("release", "offset", "result"),
    [(OLD, 0, "ENXIO"), (NEW, 0, "ok"), (NEW, 6 * MIB, "EBUSY")],
    ids=["not registered", "registered", "behind the memory"],
)
def test_whose_memory_a_bad_page_is(release: str, offset: int, result: str):
    machine = Machine(release)
    assert machine("memory_failure", device="gpu", bar=4, offset=offset)["result"] == result


def test_a_bad_page_keeps_its_leaf_and_signals_who_maps_and_who_uses_it():
    machine = Machine(NEW)
    machine.map()
    before = machine.touch(0)["entry"]
    got = machine("memory_failure", device="gpu", bar=4, offset=5 * PAGE, at=BASE)
    assert got["signals"] == [{"by": "parent", "si_code": 5, "si_addr": hex(BASE + 5 * PAGE)}]
    assert (got["entry"], got["calls"]) == (before, {})
    assert machine.touch(4 * PAGE)["result"] == "ok"
    used = machine.touch(5 * PAGE)
    assert (used["result"], used["si_code"], used["faults"]) == ("SIGBUS", 4, [])
