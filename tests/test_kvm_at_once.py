"""Guest faults of pages in a row that are handled at once against one by one: leaves, tables, events, results."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.mm import touch_pages
from pfnmap.run import Run
from pfnmap.spec import KernelSpec
from pfnmap.trace import Event, Install, unrolled
from pfnmap_kvm.again import Again
from pfnmap_kvm.mmu import OK

MACHINES = {
    "x86_64": KernelSpec("x86_64", "6.12.117"),
    "x86_64 6.1": KernelSpec("x86_64", "6.1.192"),
    "arm64": KernelSpec("arm64", "6.12.117"),
    "arm64 7.3": KernelSpec("arm64", "7.3.4"),
    "riscv64": KernelSpec("riscv64", "6.12.117"),
    "powerpc64": KernelSpec("powerpc64", "6.12.117"),
    "loongarch64": KernelSpec("loongarch64", "6.12.117"),
}
VA, GPA, PHYS = 1 << 37, 1 << 33, 0x8000000000


@cache
def linked(name: str) -> Kernel:
    return MACHINES[name].link()


def steps(draw: Any, page: int, table: int) -> list[Step]:
    """A mapping of three blocks of a PMD, a slot of it, and what a guest does there."""
    table = min(table, 256 * page)
    length = 3 * table
    va, offset = VA + draw(st.sampled_from([0, page])), draw(st.sampled_from([0, page]))
    at = {"device": "gpu", "bar": 2, "length": length, "addr": va, "fixed": True, "prot": "rw", "shared": True}
    todo = [Step("mmap", {**at, "offset": offset, "id": "m"})]
    place = st.sampled_from([0, 7 * page, table, table + page])
    access = st.sampled_from(["read", "write"])
    if draw(st.booleans()):
        todo.append(Step("touch", {"va": va + draw(place), "length": 20 * page, "access": draw(access)}))
    if draw(st.booleans()):  # the rest may only be read, or not at all
        todo.append(
            Step("mprotect", {"addr": va + 2 * table, "length": table, "prot": draw(st.sampled_from(["r", "none"]))})
        )
    first = draw(st.sampled_from([0, page, table]))
    gpa = GPA + draw(st.sampled_from([0, page, va - VA + first]))
    slot = {"slot": 0, "gpa": gpa, "va": va + first, "length": length - first}
    todo.append(Step("kvm.memslot", {**slot, "readonly": draw(st.sampled_from([False, False, True]))}))
    for _ in range(2):
        start = draw(place)
        how = {"gpa": gpa + start, "length": draw(st.sampled_from([30 * page, length])), "access": draw(access)}
        todo.append(Step("kvm.map", how))
        if draw(st.booleans()):
            todo.append(
                Step("mprotect", {"addr": va + first, "length": table // 2, "prot": draw(st.sampled_from(["r", "rw"]))})
            )
    return [*todo, Step("kvm.map", {"gpa": gpa, "length": length - first, "access": draw(access)})]


@pytest.mark.parametrize("name", MACHINES)
@settings(max_examples=5, deadline=None)
@given(st.data())
def test_guests_fault_pages_in_at_once_as_one_by_one(name: str, data: st.DataObject) -> None:
    kernel = linked(name)
    todo = steps(data.draw, kernel.geometry.PAGE_SIZE, kernel.geometry.size("pmd"))
    told = []
    for at_once in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(touch_pages, "_FEW", 2)
            if not at_once:
                patch.setattr(Again, "fault_in", lambda *_: OK)
            run = Run(kernel, [Device("gpu", "0000:3b:00.0", {2: DeviceBar(2, 1 << 30, PHYS)})])
            events: list[Event] = []
            run.machine.trace.listen(events.append)
            for step in todo:
                result = run.step(step).as_json()
                words = {pa: found.tolist() for pa, found in run.machine.phys.tables.items()}
                told.append((step.op, result, _told(events), words))
                events.clear()
    for one, other in zip(told[: len(todo)], told[len(todo) :], strict=True):
        assert one[:2] == other[:2]
        assert one[2] == other[2]
        same = one[3] == other[3]  # not shown: these are thousands of words
        assert same, one[0]


def _told(events: list[Event]) -> list[Event]:
    """Events one by one, without the entries: those are in the tables."""
    return [replace(event, entry=0) if isinstance(event, Install) else event for event in unrolled(events)]
