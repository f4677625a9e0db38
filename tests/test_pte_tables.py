"""Whole PTE tables that are worked on at once against one by one: the same steps give the same tables and events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.mm import (
    copy_page_range,
    follow_pfnmap,
    memory,
    move_page_tables,
    mprotect,
    pgtable,
    pte_tables,
    touch_pages,
    zap,
)
from pfnmap.run import Run
from pfnmap.spec import KernelSpec
from pfnmap.trace import Event, Install, unrolled

MACHINES = {
    "x86_64 6.1": KernelSpec("x86_64", "6.1.192"),
    "x86_64": KernelSpec("x86_64", "6.12.117", set={"TRANSPARENT_HUGEPAGE": "n", "MEM_SOFT_DIRTY": "y"}),
    "arm64": KernelSpec("arm64", "6.1.192"),
    "riscv64": KernelSpec("riscv64", "6.1.192"),
    "x86_64 7.3": KernelSpec("x86_64", "7.3.4", set={"TRANSPARENT_HUGEPAGE": "n"}),
    "loongarch64": KernelSpec("loongarch64", "6.1.192"),
    "powerpc64 hash": KernelSpec("powerpc64", "6.1.192", cpu={"mmu": "hash"}),
}
HUGE = {
    "x86_64": KernelSpec("x86_64", "6.12.117"),
    "x86_64 7.3": KernelSpec("x86_64", "7.3.4"),
    "arm64": KernelSpec("arm64", "6.12.117"),
    "riscv64": KernelSpec("riscv64", "6.12.117"),
    "powerpc64": KernelSpec("powerpc64", "6.12.117"),
}
"""Kernels that map with huge leaves."""
MODULES = (pte_tables, memory, copy_page_range, follow_pfnmap, move_page_tables, mprotect, pgtable, zap, touch_pages)
VA, TO, PHYS = 1 << 37, 1 << 38, 0x8000000000


@cache
def linked(name: str, *, huge: bool = False) -> Kernel:
    return (HUGE if huge else MACHINES)[name].link()


def steps(draw: Any, page: int, table: int, tables: int) -> Iterator[Step]:
    """Steps on a mapping of `tables` PTE tables, of `table` bytes each."""
    length = tables * table + draw(st.integers(0, 3)) * page
    up = draw(st.sampled_from([0, page, table - page]))
    at = {"device": "gpu", "bar": 2, "length": length, "addr": VA + up, "fixed": True, "prot": "rw", "shared": True}
    yield Step("mmap", {**at, "id": "m"})
    first = draw(st.sampled_from([0, page, table]))
    yield Step("touch", {"va": VA + up + first, "length": length - first, "access": "read"})
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.sampled_from([0, page, table - up, 2 * table]))
        part = {"addr": VA + up + start, "length": draw(st.sampled_from([length - start, tables * table // 2, page]))}
        yield draw(
            st.sampled_from(
                [
                    Step("mprotect", {**part, "prot": "r"}),
                    Step("mprotect", {**part, "prot": "none"}),
                    Step("mprotect", {**part, "prot": "rw"}),
                    Step("munmap", part),
                    mremap(draw, part["addr"], part["length"], page, table),
                    Step("pci_memory", {"device": "gpu", "enabled": False}),
                    Step("pci_memory", {"device": "gpu", "enabled": True}),
                    Step("touch", {"va": part["addr"], "access": "write"}),
                ]
            )
        )
    yield Step("fork", {})
    yield Step("touch", {"va": VA + up, "length": length, "access": "read"}, by="child")
    yield Step("touch", {"va": TO + 2 * table, "access": "write"})
    yield Step("munmap", {"addr": VA, "length": length + table})


def mremap(draw: Any, start: int, length: int, page: int, table: int) -> Step:
    """Move a part of the mapping, whole tables or pieces of them, within one PMD table or from one into two."""
    to = TO + draw(st.sampled_from([0, 2, 509])) * table + draw(st.sampled_from([0, page, table - page]))
    size = {"old_len": length, "new_len": length}
    return Step("mremap", {"addr": start, **size, "new_addr": to, "flags": ["MAYMOVE", "FIXED"]})


@pytest.mark.parametrize("name", MACHINES)
@settings(max_examples=8, deadline=None)
@given(st.data())
def test_steps_do_the_same_to_tables_at_once_as_one_by_one(name: str, data: st.DataObject) -> None:
    kernel = linked(name)
    table = kernel.geometry.size("pmd")
    compare(kernel, list(steps(data.draw, kernel.geometry.PAGE_SIZE, table, data.draw(st.integers(3, 6)))))


@pytest.mark.parametrize("name", MACHINES)
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_entries_move_at_once_as_one_by_one(name: str, data: st.DataObject) -> None:
    kernel = linked(name)
    page, table = kernel.geometry.PAGE_SIZE, kernel.geometry.size("pmd")
    length = data.draw(st.integers(4, 6)) * table
    at = {"device": "gpu", "bar": 2, "length": length, "addr": VA, "fixed": True, "prot": "rw", "shared": True}
    todo = [Step("mmap", {**at, "id": "m"}), Step("touch", {"va": VA, "length": length, "access": "read"})]
    if data.draw(st.booleans()):  # entries that are not like their neighbours
        todo.append(Step("touch", {"va": VA + 2 * table + page, "access": "write"}))
    if data.draw(st.booleans()):  # empty ones
        todo += [Step("pci_memory", {"device": "gpu", "enabled": enabled}) for enabled in (False, True)]
        todo.append(Step("touch", {"va": VA + page, "length": length - page, "access": "read"}))
    if data.draw(st.booleans()):
        todo.append(Step("mprotect", {"addr": VA, "length": length, "prot": data.draw(st.sampled_from(["r", "none"]))}))
    if data.draw(st.booleans()):  # tables where it moves to
        there = {**at, "length": table, "addr": TO + data.draw(st.sampled_from([-1, 5, 7])) * table}
        todo += [Step("mmap", {**there, "id": "n"}), Step("touch", {"va": there["addr"], "access": "read"})]
    todo.append(mremap(data.draw, VA, length, page, table))
    compare(kernel, todo)


@pytest.mark.parametrize("name", MACHINES)
@settings(max_examples=8, deadline=None)
@given(st.data())
def test_dma_maps_look_pages_up_at_once_as_one_by_one(name: str, data: st.DataObject) -> None:
    kernel = linked(name)
    page, table = kernel.geometry.PAGE_SIZE, kernel.geometry.size("pmd")
    length = 3 * table
    at = {"device": "gpu", "bar": 2, "length": length, "addr": VA, "fixed": True, "prot": "rw", "shared": True}
    todo = [Step("mmap", {**at, "offset": page * data.draw(st.sampled_from([0, 1])), "id": "m"})]
    first = VA + page * data.draw(st.sampled_from([0, 5, table // page - 20]))
    todo.append(Step("touch", {"va": first, "length": 40 * page, "access": "read"}))
    if data.draw(st.booleans()):  # an entry that is not like its neighbours
        todo.append(Step("touch", {"va": first + 20 * page, "access": "write"}))
    if data.draw(st.booleans()):  # two vmas, of which only the first may be written
        todo.append(Step("mprotect", {"addr": first + 30 * page, "length": length, "prot": "r"}))
    for n in range(3):
        start = data.draw(st.sampled_from([VA, first, first + page, first + 15 * page]))
        size = data.draw(st.sampled_from([12, 30, 100])) * page
        how = {"iova": n << 30, "va": start, "length": size, "prot": data.draw(st.sampled_from(["r", "rw"]))}
        todo.append(Step("dma_map", how))
    compare(kernel, [*todo, Step("dma_unmap", {"iova": 0, "length": 2 << 30})])


@pytest.mark.parametrize("name", HUGE)
@settings(max_examples=5, deadline=None)
@given(st.data())
def test_dma_maps_fault_pages_in_at_once_as_one_by_one(name: str, data: st.DataObject) -> None:
    kernel = linked(name, huge=True)
    page, table = kernel.geometry.PAGE_SIZE, kernel.geometry.size("pmd")
    length = data.draw(st.sampled_from([4, 5])) * min(table, 256 * page)
    va = VA + data.draw(st.sampled_from([0, page]))
    offset = data.draw(st.sampled_from([0, page]))
    at = {"device": "gpu", "bar": 2, "length": length, "addr": va, "fixed": True, "prot": "rw", "shared": True}
    todo = [Step("mmap", {**at, "offset": offset, "id": "m"})]
    inside = st.sampled_from([0, page, 9 * page, table, length // 2])
    if data.draw(st.booleans()):
        todo.append(
            Step("touch", {"va": va + data.draw(inside), "access": data.draw(st.sampled_from(["read", "write"]))})
        )
    if data.draw(st.booleans()):  # two vmas, of which only the first may be written
        todo.append(Step("mprotect", {"addr": va + length // 2, "length": length // 2, "prot": "r"}))
    for n in range(2):
        start = va + data.draw(inside)
        how = {"iova": n << 30, "va": start, "length": length, "prot": data.draw(st.sampled_from(["r", "rw"]))}
        todo.append(Step("dma_map", {**how, "length": va + length - start}))
    compare(kernel, todo)


@pytest.mark.parametrize("name", ["x86_64", "arm64"])
def test_tables_of_leaves_are_filled_at_once_as_one_by_one(name: str) -> None:
    kernel = linked(name, huge=True)
    leaf, table = kernel.geometry.size("pmd"), kernel.geometry.size("pud")
    length = 5 * table + leaf
    at = {"device": "gpu", "bar": 2, "length": length, "addr": (1 << 41) + leaf, "fixed": True, "shared": True}
    touch = Step("touch", {"va": at["addr"], "length": length, "access": "read"})
    compare(kernel, [Step("mmap", {**at, "prot": "rw", "id": "m"}), touch], size=8 * table)


def compare(kernel: Kernel, todo: list[Step], size: int = 1 << 30) -> None:
    """Run steps with tables at once, and one by one."""
    told: list[list[Any]] = []
    for few in (2, 1 << 30):
        with pytest.MonkeyPatch.context() as patch:
            for module in MODULES:
                for name in {"FEW", "_FEW"} & vars(module).keys():
                    patch.setattr(module, name, few)
            run = Run(kernel, [Device("gpu", "0000:3b:00.0", {2: DeviceBar(2, size, PHYS)})])
            events: list[Event] = []
            run.machine.trace.listen(events.append)
            told.append([])
            for step in todo:
                result = run.step(step).as_json()
                assert step.op != "mmap" or result["result"] == "ok"
                words = {pa: found.tolist() for pa, found in run.machine.phys.tables.items()}
                told[-1].append((step.op, result, _told(events), words))
                events.clear()
    for at_once, one_by_one in zip(*told, strict=True):
        same = at_once == one_by_one  # not shown: these are thousands of words
        assert same, at_once[0]


def _told(events: list[Event]) -> list[Event]:
    """Events, with what is installed in a row in one, and without the entries: those are in the tables."""
    found: list[Event] = []
    for one in unrolled(events):
        last = found[-1] if found else None
        event = replace(one, entry=0) if isinstance(one, Install) else one
        if isinstance(event, Install) and isinstance(last, Install) and event.pfn == last.pfn + last.count:
            found[-1] = Install(last.level, last.va, last.pfn, last.entry, last.count + event.count)
        else:
            found.append(event)
    return found
