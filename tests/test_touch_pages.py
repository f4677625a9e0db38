"""Pages that are touched at once against pages that are touched one by one: tables, entries, events, results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.mm import touch_pages
from pfnmap.mm.fault import user_access
from pfnmap.run import Run
from pfnmap.spec import KernelSpec
from pfnmap.trace import Event, Install, Repeat, unrolled

MACHINES = {
    "x86_64": KernelSpec("x86_64", "6.12.117"),
    "x86_64 6.1": KernelSpec("x86_64", "6.1.192"),
    "x86_64 7.3": KernelSpec("x86_64", "7.3.4"),
    "arm64 old CPU": KernelSpec("arm64", "6.12.117", cpu={"hw_access_dirty": False}),
    "riscv64": KernelSpec("riscv64", "6.12.117"),
    "powerpc64": KernelSpec("powerpc64", "6.12.117"),
    "powerpc64 hash": KernelSpec("powerpc64", "6.12.117", cpu={"mmu": "hash"}),
}
VA, PHYS = 0x100000000000, 0x8000000000


@cache
def linked(name: str) -> Kernel:
    return MACHINES[name].link()


@pytest.fixture(autouse=True)
def _small_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what takes gigabytes happen in a few megabytes."""
    monkeypatch.setattr(touch_pages, "_FEW", 2)


def machine(kernel: Kernel, pages: int, shift: int) -> Run:
    page = kernel.geometry.PAGE_SIZE
    run = Run(kernel, [Device("gpu", "0000:3b:00.0", {2: DeviceBar(2, 1 << 30, PHYS)})])
    at = {"device": "gpu", "bar": 2, "length": pages * page, "addr": VA + shift * page, "fixed": True}
    assert run.step(Step("mmap", {**at, "prot": "rw", "shared": True, "id": "m"})).result == "ok"
    return run


def tables(run: Run) -> dict[int, list[int]]:
    return {pa: words.tolist() for pa, words in run.machine.phys.tables.items()}


def told(events: list[Event]) -> Iterator[Event]:
    """Events one by one, without the entries: those are in the tables."""
    return (replace(event, entry=0) if isinstance(event, Install) else event for event in unrolled(events))


@pytest.mark.parametrize("name", MACHINES)
@settings(max_examples=5, deadline=None)
@given(st.data())
def test_pages_touched_at_once_are_as_touched_one_by_one(name: str, data: st.DataObject) -> None:
    kernel = linked(name)
    draw, page = data.draw, kernel.geometry.PAGE_SIZE
    ptrs = kernel.geometry.PTRS_PER_PTE
    units = draw(st.integers(0, 4 if ptrs <= 512 else 1), label="whole tables")
    pages = units * ptrs + draw(st.integers(1, ptrs), label="pages more")
    shift = draw(st.sampled_from([0, 1, ptrs - 1, ptrs]), label="pages up")
    before = draw(st.lists(st.integers(0, pages - 1), max_size=3), label="touched before")
    start = draw(st.integers(0, min(pages - 1, ptrs)), label="first")
    write = draw(st.booleans(), label="write")
    another_type = kernel.arch.name == "x86_64" and draw(st.booleans(), label="another type")
    one, other = (machine(kernel, pages, shift) for _ in range(2))
    va = one.names["m"]
    for run in (one, other):
        if another_type:
            part = {"device": "gpu", "bar": 2, "offset": pages // 2 * page, "length": page, "mode": "uncached"}
            run.step(Step("memtype_reserve_io", part))
        for n in before:
            user_access(run.parent, va + n * page, write=not write)
        run.machine.trace.drain()
    access = {"va": va + start * page, "length": (pages - start) * page, "access": "write" if write else "read"}
    events: list[Event] = []
    one.machine.trace.listen(events.append)
    got = one.step(Step("touch", access)).as_json()
    outcomes = {user_access(other.parent, va + n * page, write).result for n in range(start, pages)}
    assert {got["result"]} == outcomes
    assert tables(one) == tables(other)
    assert one.parent.pgtables_bytes == other.parent.pgtables_bytes
    if got["result"] == "ok":
        assert list(told(events)) == list(told(other.machine.trace.events))
        assert got["touches"] == pages - start


@pytest.mark.parametrize("name", MACHINES)
@settings(max_examples=5, deadline=None)
@given(st.data())
def test_a_scan_says_the_same_at_once_as_one_by_one(name: str, data: st.DataObject) -> None:
    kernel = linked(name)
    ptrs, page = kernel.geometry.PTRS_PER_PTE, kernel.geometry.PAGE_SIZE
    pages = data.draw(st.integers(1, 2 * min(ptrs, 512)), label="pages")
    shift = data.draw(st.sampled_from([0, 1, ptrs - 1]), label="pages up")
    runs = [machine(kernel, pages, shift) for _ in range(2)]
    scan = {"start": "m", "end": f"m+{pages * page + page:#x}", "step": page, "access": "read"}
    got = [runs[0].step(Step("scan", scan)).as_json()]
    runs[1].machine.poisoned.add(1)  # a page of no device: now nothing is done at once
    got.append(runs[1].step(Step("scan", scan)).as_json())
    assert got[0] == got[1]


def test_a_bar_of_128_gib_is_touched_page_by_page_with_a_short_trace() -> None:
    kernel = linked("x86_64")
    run = Run(kernel, [Device("gpu", "0000:3b:00.0", {2: DeviceBar(2, 1 << 37, PHYS)})])
    at = {"device": "gpu", "bar": 2, "length": 1 << 37, "addr": VA, "fixed": True, "prot": "rw", "shared": True}
    run.step(Step("mmap", at))
    events: list[Event] = []
    run.machine.trace.listen(events.append)
    got = run.step(Step("touch", {"va": VA, "length": 1 << 37, "access": "read"})).as_json()
    assert (got["touches"], got["calls"]) == (1 << 25, {"vmf_insert_pfn_pud": 128})
    last = events[-1]
    assert isinstance(last, Repeat)
    assert last.last == VA + (127 << 30)
