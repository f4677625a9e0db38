"""Before `vfio-fault-mmaps` mmap itself fills a mapping (the patches of the change and its backports, read, not run);
there is no vfio-pci before 3.6."""

from __future__ import annotations

from typing import Any

import pytest

from pfnmap import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.errors import Refused
from pfnmap.kernel import Kernel
from pfnmap.plan import Request, plan
from pfnmap.run import Run

GIB = 1 << 30
PHYS = 0x3800_0000_0000
VA = 0x1000_0000_0000
PAGES = GIB // 4096


def linked(release: str) -> Kernel:
    return Kernel.link("x86_64", ["vfio_pci"], release=release)


def planned(release: str) -> dict[str, Any]:
    request = Request(bar=0, phys=PHYS, bar_size=GIB, va=VA)
    return plan(linked(release), [request]).as_json()["mappings"][0]


@pytest.mark.parametrize("release", ["3.6", "4.9.235", "4.14.68", "4.15", "4.19.143", "5.4.63", "5.7.9"])
def test_mmap_fills_the_mapping_and_nothing_faults(release: str):
    mapping = planned(release)
    assert mapping["counts"] == {"pud": 0, "pmd": 0, "pte": PAGES}
    assert mapping["driver_calls"] == 0
    assert mapping["dma_map"]["cold"] == {"walks": PAGES, "fixups": 0, "driver_calls": 0}


@pytest.mark.parametrize("release", ["4.9.236", "4.14.198", "4.19.144", "5.4.64", "5.8", "6.1.192"])
def test_from_the_change_on_the_first_touch_fills_it(release: str):
    mapping = planned(release)
    assert mapping["counts"] == {"pud": 0, "pmd": 0, "pte": PAGES}
    assert mapping["driver_calls"] == 1
    assert mapping["dma_map"]["cold"]["walks"] == PAGES + 1


def test_memory_decode_off_and_on_leaves_what_mmap_filled():
    length = 16 << 20
    run = Run(linked("4.14.68"), [Device("dev", "0000:00:01.0", {0: DeviceBar(0, length, PHYS)})])

    def step(op: str, **arguments: Any) -> dict[str, Any]:
        return run.step(Step(op, arguments)).as_json()

    where = {"device": "dev", "bar": 0, "length": length, "addr": VA, "fixed": True, "prot": "rw", "shared": True}
    assert step("mmap", **where)["table_bytes"] == 8 * 4096 + 8192
    step("pci_memory", device="dev", enabled=False)
    touched = step("touch", va=VA + 4096, access="read")
    assert touched["result"] == "ok"
    assert not touched["faults"]


@pytest.mark.parametrize("release", ["2.6.32", "3.5.7", "2.6.32-754.el6.x86_64"])
def test_a_kernel_without_vfio_is_refused(release: str):
    with pytest.raises(Refused, match=r"vfio-pci \(first in 3\.6\)"):
        planned(release)
    with pytest.raises(Refused, match="has no vfio-pci"):
        Run(linked(release), [Device("dev", "0000:00:01.0", {0: DeviceBar(0, GIB, PHYS)})])
