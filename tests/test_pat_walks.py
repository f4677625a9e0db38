"""PAT's walks of vfio's pfnmaps, as the records of 6.1.192 count them."""

from __future__ import annotations

from typing import Any

import pytest

from pfnmap import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.run import Run

HOOKS = ("track_pfn_remap", "track_pfn_insert", "track_pfn_copy", "untrack_pfn", "untrack_pfn_clear")
CONTEXT = ("pfnmap_track", "pfnmap_untrack", "pfnmap_setup_cachemode")
PAGE = 4096
MIB = 1 << 20
BASE = 0x1000_0000_0000
CONFIG = {"TRANSPARENT_HUGEPAGE": "y", "MEM_SOFT_DIRTY": "y"}


class Machine:
    """A run of 6.1.192 with an 8 MiB BAR, mapped whole at BASE and populated."""

    def __init__(self, **config: str) -> None:
        self.kernel = Kernel.link("x86_64", ["vfio_pci"], release="6.1.192", config={**CONFIG, **config})
        self.run = Run(self.kernel, [Device("dev", "0000:00:01.0", {0: DeviceBar(0, 8 * MIB, 0x8_0000_0000)})])
        where = {"device": "dev", "bar": 0, "addr": BASE, "length": 8 * MIB, "fixed": True}
        self("mmap", prot="rw", shared=True, **where)
        self("touch", va=BASE, access="read")

    def __call__(self, op: str, *, by: str = "parent", **arguments: Any) -> dict[str, Any]:
        return self.run.step(Step(op, arguments, by=by, where=f"step {op}")).as_json()

    def flags(self) -> list[str]:
        """VmFlags of the mapping, as smaps shows them: VM_PAT is `ar`."""
        return self("smaps", va=BASE)["fields"]["VmFlags"]


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.mark.parametrize(
    ("op", "arguments", "returns"),
    [
        pytest.param("munmap", {"addr": BASE, "length": 8 * MIB}, {"ok": 1}, id="munmap"),
        pytest.param("fork", {}, {"ok": 1}, id="fork"),
        pytest.param("pci_memory", {"device": "dev", "enabled": False}, {"ok": 1}, id="memory decode off"),
        pytest.param("mprotect", {"addr": BASE + MIB, "length": PAGE, "prot": "r"}, {"ok": 2}, id="two new pieces"),
        pytest.param("munmap", {"addr": BASE + MIB, "length": PAGE}, {"ok": 1}, id="a hole"),
        pytest.param(
            "mremap",
            {
                "addr": BASE,
                "old_len": 8 * MIB,
                "new_len": 8 * MIB,
                "new_addr": BASE + 64 * MIB,
                "flags": ["MAYMOVE", "FIXED"],
            },
            {"ok": 0, "EINVAL": 1},
            id="mremap",
        ),
    ],
)
def test_walks_as_recorded(machine: Machine, op: str, arguments: dict[str, Any], returns: dict[str, int]):
    assert machine(op, **arguments)["follow_returns"] == returns


def test_a_vma_is_tracked_from_the_fault_that_fills_it_to_the_zap(machine: Machine):
    assert "ar" in machine.flags()
    machine("pci_memory", device="dev", enabled=False)
    assert "ar" not in machine.flags()
    assert "follow_returns" not in machine("pci_memory", device="dev", enabled=False)
    machine("pci_memory", device="dev", enabled=True)
    machine("touch", va=BASE, access="read")
    assert "ar" in machine.flags()


def test_a_move_warns_once_a_boot(machine: Machine):
    warned = []
    for n in range(2):
        where = {"new_addr": BASE + (64 + 64 * n) * MIB, "flags": ["MAYMOVE", "FIXED"]}
        moved = machine("mremap", addr=BASE + 64 * MIB * n, old_len=8 * MIB, new_len=8 * MIB, **where)
        warned += moved.get("messages", [])
    assert [text.partition(" at ")[2] for text in warned] == ["arch/x86/mm/pat/memtype.c untrack_pfn"]


def test_without_pat_nothing_walks():
    machine = Machine(X86_PAT="n")
    assert {machine.kernel.ops.owners[hook] for hook in HOOKS + CONTEXT} == {"generic"}
    assert "follow_returns" not in machine("munmap", addr=BASE, length=8 * MIB)


def test_a_vma_that_was_filled_by_remap_pfn_range_is_walked_by_the_new_look_up_in_6_12():
    kernel = Kernel.link("x86_64", ["vfio_pci"], release="6.12.117", config=CONFIG)
    run = Run(kernel, [Device("dev", "0000:00:01.0", {0: DeviceBar(0, 8 * MIB, 0x8_0000_0000)})])
    where = {"device": "dev", "bar": 0, "addr": BASE, "length": 8 * MIB, "fixed": True}
    run.step(Step("mmap", {"prot": "rw", "shared": True, **where}))
    vma = run.parent.vma_lookup(BASE)
    assert vma is not None
    assert run.machine.mm.remap_pfn_range(vma, BASE, 0x80_0000, 8 * MIB, vma.vm_page_prot) == 0
    got = run.step(Step("munmap", {"addr": BASE, "length": 8 * MIB})).as_json()
    assert got["calls"] == {"follow_pfnmap_start": 1}
    assert got["follow_returns"] == {"ok": 1}
