"""vfio type1: walks, faults and pins of DMA maps; the numbers are those of REAL-KERNEL's table and of the records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pfnmap import BadInput, Device, DeviceBar, Unknown, VmFault
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.run import Run

PAGE = 4096
MIB = 1 << 20
GIB = 1 << 30
BASE = 0x1000_0000_0000
PHYS = 0x8_0000_0000
IOVA = 0x1_0000_0000
CONFIG = {"TRANSPARENT_HUGEPAGE": "y", "MEM_SOFT_DIRTY": "y"}


class Machine:
    """A run with one 8 GiB BAR, and short forms of its steps."""

    def __init__(self, release: str = "6.12.117", *, reset: bool = False) -> None:
        self.kernel = Kernel.link("x86_64", ["vfio_pci"], release=release, config=CONFIG)
        device = Device("dev", "0000:00:01.0", {0: DeviceBar(0, 8 * GIB, PHYS)}, reset_works=reset)
        self.run = Run(self.kernel, [device])

    def __call__(self, op: str, *, by: str = "parent", **arguments: Any) -> dict[str, Any]:
        return self.run.step(Step(op, arguments, by=by, where=f"step {op}")).as_json()

    def map(self, va: int = BASE, length: int = 8 * GIB, offset: int = 0, prot: str = "rw") -> None:
        where = {"device": "dev", "bar": 0, "offset": offset, "addr": va, "length": length, "fixed": True}
        assert self("mmap", prot=prot, shared=True, **where)["result"] == "ok"

    def map_anonymous(self, va: int, pages: int) -> None:
        where = {"device": None, "addr": va, "length": pages * PAGE, "fixed": True, "prot": "rw", "shared": False}
        assert self("mmap", **where)["result"] == "ok"

    def dma_map(self, va: int = BASE, length: int = 8 * MIB, prot: str = "rw", iova: int = IOVA) -> dict[str, Any]:
        return self("dma_map", iova=iova, va=va, length=length, prot=prot)

    def walks(self, got: dict[str, Any]) -> tuple[int, int, int]:
        """Walks that found something, walks that did not, fixups."""
        returns = got.get("follow_returns", {})
        return returns.get("ok", 0), returns.get("EINVAL", 0), got["calls"].get("fixup_user_fault", 0)


@pytest.mark.parametrize(
    ("release", "va", "cold", "warm"),
    [
        pytest.param("6.12.117", BASE, (2048, 1, 1), (2048, 0, 0), id="1G leaf, by page"),
        pytest.param("7.3.4", BASE, (1, 1, 1), (1, 0, 0), id="1G leaf, by leaf"),
        pytest.param("6.12.117", BASE + 2 * MIB, (2048, 4, 4), (2048, 0, 0), id="2M leaves, by page"),
        pytest.param("7.3.4", BASE + 2 * MIB, (4, 4, 4), (4, 0, 0), id="2M leaves, by leaf"),
        pytest.param("7.3.4", BASE + PAGE, (2048, 2048, 2048), (2048, 0, 0), id="pages, by leaf"),
        pytest.param("6.1.192", BASE, (2048, 1, 1), (2048, 0, 0), id="before huge pfnmaps"),
    ],
)
def test_walks_of_8m_cold_and_warm(release: str, va: int, cold: tuple[int, int, int], warm: tuple[int, int, int]):
    machine = Machine(release)
    machine.map(va, GIB if release == "6.1.192" else 8 * GIB - 2 * MIB)
    assert machine.walks(machine.dma_map(va)) == cold
    assert machine("dma_unmap", iova=IOVA, length=8 * MIB)["bytes"] == 8 * MIB
    assert machine.walks(machine.dma_map(va)) == warm


def test_a_walk_that_starts_inside_a_leaf_covers_the_rest_of_it():
    machine = Machine("7.3.4")
    machine.map(BASE + 2 * MIB, 4 * GIB)
    assert machine.walks(machine.dma_map(BASE + 3 * MIB, 4 * MIB)) == (3, 3, 3)


def test_the_faults_are_write_faults_without_vma_lock_and_leave_the_leaf_clean():
    machine = Machine()
    machine.map()
    got = machine.dma_map(length=PAGE)
    assert got["faults"] == [{"order": 18, "ret": "NOPAGE", "va": hex(BASE), "write": True, "vma_lock": False}]
    assert int(machine("walk", va=BASE)["entry"]["value"], 16) & 0x40 == 0


@pytest.mark.parametrize(("release", "pages"), [("6.12.117", 1024), ("7.3.4", 2)])
def test_a_pfn_that_does_not_continue_the_row_is_walked_to_once_more(release: str, pages: int):
    # By the source: the batch cannot remember it, so the next call of vfio_pin_pages_remote starts with it again.
    machine = Machine(release)
    machine.map(BASE, 2 * MIB)
    machine.map(BASE + 2 * MIB, 2 * MIB, offset=64 * MIB)
    machine("scan", start=BASE, end=BASE + 4 * MIB, step=2 * MIB, access="read")
    assert machine.walks(machine.dma_map(length=4 * MIB)) == (pages + 1, 0, 0)


def test_a_read_only_mapping_takes_reads_only():
    machine = Machine()
    machine.map(prot="r")
    got = machine.dma_map(length=2 * MIB)
    assert (got["result"], machine.walks(got), got["handle_mm_fault"]) == ("EFAULT", (0, 1, 1), 0)
    assert machine.dma_map(length=2 * MIB, prot="r")["result"] == "ok"
    assert machine("dma_unmap", iova=IOVA, length=2 * MIB)["bytes"] == 2 * MIB
    got = machine.dma_map(length=2 * MIB)
    assert (got["result"], machine.walks(got)) == ("EFAULT", (1, 0, 0))


def test_what_was_faulted_in_before_a_failure_stays_and_the_iova_is_free_again():
    machine = Machine()
    machine.map(BASE, 4 * PAGE)
    got = machine.dma_map(length=8 * PAGE)
    assert (got["result"], machine.walks(got), got["table_bytes"]) == ("EFAULT", (4, 4, 4), 3 * PAGE)
    assert machine("dma_unmap", iova=IOVA, length=8 * PAGE)["bytes"] == 0
    assert machine.dma_map(length=4 * PAGE)["result"] == "ok"


def test_memory_decode_off_is_efault():
    machine = Machine()
    machine.map()
    machine("pci_memory", device="dev", enabled=False)
    got = machine.dma_map()
    assert (got["result"], machine.walks(got)) == ("EFAULT", (0, 1, 1))
    assert [f["ret"] for f in got["faults"]] == ["SIGBUS"]


def test_anonymous_pages_are_faulted_in_by_the_pin_and_kept_until_the_unmap():
    machine = Machine()
    machine.map_anonymous(BASE, 4)
    before = len(machine.run.machine.phys.ram)
    got = machine.dma_map(length=4 * PAGE)
    assert (got["result"], got["handle_mm_fault"], got["calls"]) == ("ok", 4, {})
    machine("munmap", addr=BASE, length=4 * PAGE)
    assert len(machine.run.machine.phys.ram) == before + 4
    assert machine("dma_unmap", iova=IOVA, length=4 * PAGE)["bytes"] == 4 * PAGE
    assert len(machine.run.machine.phys.ram) == before


def test_a_range_over_memory_and_a_bar_pins_the_one_and_walks_the_other():
    machine = Machine()
    machine.map_anonymous(BASE - 2 * PAGE, 2)
    machine.map(BASE, 2 * MIB)
    machine("touch", va=BASE, access="read")
    got = machine.dma_map(BASE - 2 * PAGE, 4 * PAGE)
    assert (got["handle_mm_fault"], machine.walks(got)) == (2, (3, 0, 0))


def test_a_failed_map_gives_its_pins_back():
    machine = Machine()
    machine.map_anonymous(BASE, 4)
    machine.dma_map(length=8 * PAGE)
    machine("munmap", addr=BASE, length=4 * PAGE)
    assert set(machine.run.machine.phys.ram) == {machine.run.machine.phys.zero_page}


def test_the_child_maps_its_own_memory():
    machine = Machine()
    machine.map(BASE, 2 * MIB)
    machine("fork")
    got = machine("dma_map", by="child", iova=IOVA, va=BASE, length=PAGE, prot="rw")
    assert got["table_bytes"] > 0
    assert machine("walk", va=BASE)["entry"]["value"] == "0x0"


def test_a_fault_that_lets_go_of_mmap_lock_makes_type1_look_the_vma_up_again():
    machine = Machine()
    machine.map(BASE, 2 * MIB)
    vma = machine.run.parent.vma_lookup(BASE)
    assert vma is not None
    assert vma.vm_ops is not None
    driver = vma.vm_ops.fault
    answers = [0x400]  # VM_FAULT_RETRY

    def fault(vmf: VmFault) -> int:
        return answers.pop() if answers else driver(vmf)

    vma.vm_ops = replace(vma.vm_ops, fault=fault, huge_fault=None)
    got = machine.dma_map(length=PAGE)
    assert got["result"] == "ok"
    assert [f["ret"] for f in got["faults"]] == ["RETRY", "NOPAGE"]
    assert machine.walks(got) == (1, 1, 1)  # the second look is the retry's own, and finds the entry


@pytest.mark.parametrize(
    ("iova", "va", "length", "result"),
    [
        (IOVA, BASE, 2048, "EINVAL"),
        (IOVA, BASE + 512, PAGE, "EINVAL"),
        (IOVA + 512, BASE, PAGE, "EINVAL"),
        (IOVA, BASE, 0, "EINVAL"),
        ((1 << 64) - PAGE, BASE, 2 * PAGE, "EINVAL"),
        (IOVA + 3 * PAGE, BASE, PAGE, "EEXIST"),
        (IOVA + 4 * PAGE, BASE, PAGE, "ok"),
    ],
)
def test_what_can_be_mapped(iova: int, va: int, length: int, result: str):
    machine = Machine()
    machine.map(BASE, 2 * MIB)
    machine.dma_map(length=4 * PAGE)
    assert machine.dma_map(va, length, iova=iova)["result"] == result


def test_an_unmap_takes_whole_maps_only():
    machine = Machine()
    machine.map(BASE, 2 * MIB)
    machine.dma_map(length=4 * PAGE)
    machine.dma_map(length=4 * PAGE, iova=IOVA + 4 * PAGE)
    cut = machine("dma_unmap", iova=IOVA, length=6 * PAGE)
    assert (cut["result"], cut["bytes"]) == ("EINVAL", 6 * PAGE)
    for expected in (8 * PAGE, 0):
        got = machine("dma_unmap", iova=IOVA, length=8 * PAGE)
        assert (got["result"], got["bytes"]) == ("ok", expected)


def test_wrong_arguments_are_named():
    machine = Machine()
    with pytest.raises(BadInput, match="none of r, w, rw"):
        machine.dma_map(prot="x")
    with pytest.raises(Unknown, match="device 'devv'"):
        machine("device_reset", device="devv")


def test_a_read_only_long_term_pin_of_untouched_memory_takes_a_fault_to_read_and_one_to_unshare():
    machine = Machine()
    machine.map_anonymous(BASE, 1)
    got = machine.dma_map(length=PAGE, prot="r")
    assert (got["result"], got["handle_mm_fault"]) == ("ok", 2)


def test_a_device_that_can_be_reset_loses_its_mappings_and_another_answers_einval():
    for reset, result in ((False, "EINVAL"), (True, "ok")):
        machine = Machine(reset=reset)
        machine.map()
        machine("touch", va=BASE, access="read")
        got = machine("device_reset", device="dev")
        assert (got["result"], got["calls"].get("unmap_mapping_range", 0)) == (result, int(reset))
        assert (machine("walk", va=BASE)["entry"]["value"] == "0x0") == reset
