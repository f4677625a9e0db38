"""The leaves of arrays of addresses against those of each address by itself."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.entry import LEVELS
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.mm.leaves import NO_LEAF, leaves
from pfnmap.run import Run
from pfnmap.spec import KernelSpec

MACHINES = {
    "x86_64": KernelSpec("x86_64", "6.12.117"),
    "x86_64 la57": KernelSpec("x86_64", "6.12.117", cpu={"la57": True}),
    "x86_64 6.1": KernelSpec("x86_64", "6.1.192"),
    "arm64": KernelSpec("arm64", "7.3.4"),
    "s390": KernelSpec("s390", "7.3.4"),
    "riscv64": KernelSpec("riscv64", "6.12.117"),
    "powerpc64": KernelSpec("powerpc64", "6.12.117"),
    "loongarch64": KernelSpec("loongarch64", "6.12.117"),
}
VA, PHYS, GIB = 1 << 36, 0x8000000000, 1 << 30


@cache
def linked(name: str) -> Kernel:
    return MACHINES[name].link()


@pytest.mark.parametrize("name", MACHINES)
@settings(max_examples=10, deadline=None)
@given(st.data())
def test_leaves_of_an_array_are_those_of_each_address(name: str, data: st.DataObject) -> None:
    kernel = linked(name)
    page, block = kernel.geometry.PAGE_SIZE, kernel.geometry.size("pmd")
    run = Run(kernel, [Device("gpu", "0000:3b:00.0", {2: DeviceBar(2, 4 * GIB, PHYS)})])
    length = data.draw(st.sampled_from([3 * page, 2 * block, 3 * GIB]))
    at = {"device": "gpu", "bar": 2, "length": length, "fixed": True, "prot": "rw", "shared": True}
    run.step(Step("mmap", {**at, "addr": VA + data.draw(st.sampled_from([0, page, block])), "id": "m"}))
    run.step(
        Step("mmap", {"shared": False, "addr": 1 << 34, "length": 4 * page, "fixed": True, "prot": "rw", "id": "a"})
    )
    places = st.one_of(
        st.sampled_from([VA, VA + GIB, VA + length, 1 << 34]).map(lambda start: start + 2 * page),
        st.integers(VA - block, VA + 4 * GIB),
        st.integers(0, kernel.geometry.task_size - 1),
    )
    for place in data.draw(st.lists(places, max_size=4)):
        run.step(Step("touch", {"va": place & -page, "access": data.draw(st.sampled_from(["read", "write"]))}))
    if data.draw(st.booleans()):  # a leaf is split, or entries are none and not empty
        run.step(Step("mprotect", {"addr": VA + block, "length": block, "prot": "none"}))
    asked = np.array(data.draw(st.lists(places, min_size=1, max_size=60)), np.uint64)
    found = leaves(run.parent, asked)
    for address, level, entry in zip(asked.tolist(), found.level.tolist(), found.entry.tolist(), strict=True):
        leaf = run.parent.tables.leaf(address)
        expected = (NO_LEAF, 0) if leaf is None else (LEVELS.index(leaf[0]), leaf[1].entry)
        assert (level, entry) == expected, hex(address)
        pte, slot = run.parent.tables.pte(address), run.parent.tables.slot("pte", address)
        assert (pte is None) == (slot is None), hex(address)
        if pte is not None and slot is not None:
            assert pte[0] is slot.table
            assert pte[1] == slot.index, hex(address)


def test_leaves_of_no_address_are_none() -> None:
    run = Run(linked("x86_64"), [])
    assert [len(array) for array in leaves(run.parent, np.empty(0, np.uint64))] == [0, 0]


def test_leaves_of_many_tables_in_several_stretches_of_memory() -> None:
    run = Run(linked("x86_64 6.1"), [Device("gpu", "0000:3b:00.0", {2: DeviceBar(2, 4 * GIB, PHYS)})])
    at = {"device": "gpu", "bar": 2, "length": 4 * GIB, "addr": VA, "fixed": True, "prot": "rw", "shared": True}
    run.step(Step("mmap", {**at, "id": "m"}))
    run.step(Step("touch", {"va": VA, "access": "read"}))
    asked = np.arange(VA, VA + 4 * GIB, 37 * 4096, dtype=np.uint64)
    found = leaves(run.parent, asked)
    ops = run.machine.kernel.ops
    assert not found.level.any()
    assert (ops.pte_pfn(found.entry) == (asked - VA + PHYS) >> np.uint64(12)).all()
