"""iommufd: pfnmaps are refused by address, a BAR goes in by its dma-buf; each errno once."""

from __future__ import annotations

from typing import Any

import pytest

from pfnmap import BadInput, Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.run import Run

PAGE = 4096
MIB = 1 << 20
BASE = 0x1000_0000_0000
RAM = 0x1100_0000_0000
IOVA = 0x1_0000_0000
TOP = 1 << 64


class Machine:
    """A run with one 8 MiB BAR mapped at BASE and 4 pages of memory at RAM."""

    def __init__(self, release: str = "6.12.117") -> None:
        config = {"TRANSPARENT_HUGEPAGE": "y"}
        self.kernel = Kernel.link("x86_64", ["vfio_pci"], release=release, config=config)
        self.run = Run(self.kernel, [Device("dev", "0000:00:01.0", {0: DeviceBar(0, 8 * MIB, 0x8_0000_0000)})])
        where = {"fixed": True, "prot": "rw"}
        self("mmap", device="dev", bar=0, offset=0, addr=BASE, length=8 * MIB, shared=True, **where)
        self("mmap", device=None, addr=RAM, length=4 * PAGE, shared=False, **where)

    def __call__(self, op: str, **arguments: Any) -> dict[str, Any]:
        return self.run.step(Step(op, arguments, where=f"step {op}")).as_json()

    def map(self, va: int = RAM, length: int = 4 * PAGE, iova: int = IOVA, prot: str = "rw") -> dict[str, Any]:
        return self("iommufd_map", iova=iova, va=va, length=length, prot=prot)

    def map_bar(self, length: int = 8 * MIB, offset: int = 0, iova: int = IOVA) -> dict[str, Any]:
        return self("iommufd_map_file", iova=iova, device="dev", bar=0, offset=offset, length=length)


@pytest.mark.parametrize("release", ["6.1.192", "6.12.117", "7.3.4"])
@pytest.mark.parametrize("touched", [False, True])
def test_a_pfnmap_is_refused_without_walk_or_fault(release: str, touched: bool):
    machine = Machine(release)
    if touched:
        machine("touch", va=BASE, access="write")
    got = machine.map(BASE, 2 * MIB)
    assert (got["result"], got["calls"], got["handle_mm_fault"]) == ("EFAULT", {}, 0)


def test_memory_is_pinned_until_the_unmap():
    machine = Machine()
    got = machine.map()
    assert (got["result"], got["handle_mm_fault"]) == ("ok", 4)
    machine("munmap", addr=RAM, length=4 * PAGE)
    kept = len(machine.run.machine.phys.ram)
    assert machine("iommufd_unmap", iova=IOVA, length=4 * PAGE)["bytes"] == 4 * PAGE
    assert len(machine.run.machine.phys.ram) == kept - 4


def test_a_range_that_ends_in_a_bar_gives_its_pins_back():
    machine = Machine()
    machine("mmap", device=None, addr=BASE - 2 * PAGE, length=2 * PAGE, shared=False, fixed=True, prot="rw")
    assert machine.map(BASE - 2 * PAGE, 4 * PAGE)["result"] == "EFAULT"
    machine("munmap", addr=BASE - 2 * PAGE, length=2 * PAGE)
    assert set(machine.run.machine.phys.ram) == {machine.run.machine.phys.zero_page}


@pytest.mark.parametrize(
    ("change", "result"),
    [
        ({"length": 0}, "EINVAL"),
        ({"length": 2048}, "EINVAL"),
        ({"va": RAM + 512, "iova": 0}, "EINVAL"),
        ({"iova": IOVA + 512}, "EINVAL"),
        ({"va": TOP - PAGE, "length": 2 * PAGE}, "EOVERFLOW"),
        ({"iova": TOP - PAGE, "length": 2 * PAGE}, "EOVERFLOW"),
        ({"iova": IOVA - PAGE, "length": 2 * PAGE}, "EEXIST"),
        ({"iova": IOVA - PAGE, "length": PAGE}, "ok"),
        ({"va": RAM - PAGE, "iova": 0}, "EFAULT"),
    ],
)
def test_what_can_be_mapped_by_address(change: dict[str, int], result: str):
    machine = Machine()
    assert machine.map()["result"] == "ok"
    assert machine.map(**change)["result"] == result


def test_only_a_dma_buf_s_release_maps_a_bar_and_then_without_walks():
    assert Machine("6.12.117").map_bar()["result"] == "ENOTTY"
    got = Machine("7.3.4").map_bar()
    assert (got["result"], got["calls"], got["handle_mm_fault"]) == ("ok", {}, 0)


@pytest.mark.parametrize(
    ("change", "result"),
    [
        ({"length": 0}, "EINVAL"),
        ({"length": 512}, "EINVAL"),
        ({"offset": 512, "length": PAGE}, "EINVAL"),
        ({"offset": 4 * MIB}, "EINVAL"),
        ({"length": PAGE, "iova": IOVA + 512}, "EINVAL"),
        ({"length": 2 * PAGE, "iova": TOP - PAGE}, "EOVERFLOW"),
        ({"length": PAGE}, "EEXIST"),
        ({"length": PAGE, "iova": IOVA - PAGE}, "ok"),
    ],
)
def test_what_can_be_mapped_of_a_bar(change: dict[str, int], result: str):
    machine = Machine("7.3.4")
    assert machine.map_bar()["result"] == "ok"
    assert machine.map_bar(**change)["result"] == result


def test_a_bar_with_decode_off_is_enodev():
    machine = Machine("7.3.4")
    machine("pci_memory", device="dev", enabled=False)
    assert machine.map_bar()["result"] == "ENODEV"


@pytest.mark.parametrize(
    ("iova", "length", "result", "size"),
    [
        (IOVA, 0, "EINVAL", 0),
        (TOP - PAGE, 2 * PAGE, "EOVERFLOW", 2 * PAGE),
        (0, PAGE, "ENOENT", PAGE),
        (IOVA + PAGE, 8 * PAGE, "ENOENT", 8 * PAGE),
        (IOVA, 3 * PAGE, "ENOENT", 3 * PAGE),
        (IOVA, 8 * PAGE, "ok", 4 * PAGE),
    ],
)
def test_what_can_be_unmapped(iova: int, length: int, result: str, size: int):
    machine = Machine()
    machine.map()
    got = machine("iommufd_unmap", iova=iova, length=length)
    assert (got["result"], got["bytes"]) == (result, size)


def test_a_protection_that_there_is_not_is_named():
    with pytest.raises(BadInput, match="none of r, w, rw"):
        Machine().map(prot="x")
