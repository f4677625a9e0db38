"""arm64's KVM over the memory of a Grace Hopper GPU: cacheable, which a CPU must be able to have without maintenance.

Read, not run: kvm_arch_prepare_memory_region and user_mem_abort of arch/arm64/kvm/mmu.c, 6.17 and later.
"""

from __future__ import annotations

from typing import Any

import pytest

from pfnmap import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.run import Run

GPA, VA, GIB = 0x80_0000_0000, 0x10_0000_0000, 1 << 30


def _run(release: str, cpu: dict[str, Any]) -> Run:
    kernel = Kernel.link("arm64", ["nvgrace_gpu", "kvm"], release=release, cpu=cpu, given={"TRANSPARENT_HUGEPAGE": "y"})
    bars = {2: DeviceBar(2, GIB, 1 << 41), 4: DeviceBar(4, GIB, 1 << 40)}
    return Run(kernel, [Device("gpu", "0009:01:00.0", bars, driver="nvgrace_gpu")])


def _step(run: Run, op: str, **arguments: Any) -> dict[str, Any]:
    return run.step(Step(op, arguments, where=op)).as_json()


def _map(run: Run, bar: int) -> None:
    where = {"addr": VA, "length": GIB, "fixed": True, "offset": 0, "prot": "rw", "shared": True}
    assert _step(run, "mmap", device="gpu", bar=bar, **where)["result"] == "ok"


@pytest.mark.parametrize(
    ("release", "bar", "cpu", "result"),
    [
        pytest.param("7.3.4", 4, {}, "ok", id="a CPU that can"),
        pytest.param("7.3.4", 4, {"s2fwb": False}, "EINVAL", id="without S2FWB"),
        pytest.param("7.3.4", 4, {"cache_dic": False}, "EINVAL", id="without DIC"),
        pytest.param("7.3.4", 2, {"s2fwb": False}, "ok", id="memory that is not cacheable"),
        pytest.param("6.12.117", 4, {"s2fwb": False}, "ok", id="before the change: mapped as a device"),
    ],
)
def test_a_slot_over_cacheable_memory(release: str, bar: int, cpu: dict[str, Any], result: str) -> None:
    run = _run(release, cpu)
    _map(run, bar)
    assert _step(run, "kvm.memslot", slot=0, gpa=GPA, va=VA, length=GIB)["result"] == result


@pytest.mark.parametrize(("cpu", "result"), [({}, "ok"), ({"s2fwb": False}, "EFAULT")])
def test_a_fault_on_cacheable_memory_that_came_after_the_slot(cpu: dict[str, Any], result: str) -> None:
    run = _run("7.3.4", cpu)
    assert _step(run, "kvm.memslot", slot=0, gpa=GPA, va=VA, length=GIB)["result"] == "ok"
    _map(run, 4)
    assert _step(run, "kvm.map", gpa=GPA, length=4096, access="read")["result"] == result
