"""What a replay does not compare, because no run can make it again; and that it compares all else."""

from __future__ import annotations

from typing import Any

import pytest

from pfnmap import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.run import Run
from pfnmap.unreproducible import forgive

BASE = 0x1000_0000_0000
PAGE = 4096
BAR = 0x8_0000_0000
PRESENT = 1 << 63


@pytest.fixture
def run() -> Run:
    kernel = Kernel.link("x86_64", ["vfio_pci"], release="6.12.117", config={"TRANSPARENT_HUGEPAGE": "y"})
    run = Run(kernel, [Device("dev", "0000:00:01.0", {0: DeviceBar(0, 1 << 30, BAR)})])
    where = {"device": None, "addr": BASE, "length": PAGE, "fixed": True, "prot": "rw", "shared": False}
    for op, arguments in (("mmap", where), ("touch", {"va": BASE, "access": "write"})):
        run.step(Step(op, arguments, where=op))
    return run


def agree(run: Run, key: str, expected: Any, got: Any) -> bool:
    sides = {key: expected}, {key: got}
    forgive(run, *sides)
    return sides[0] == sides[1]


def test_a_frame_of_ram_is_another_one_in_each_boot(run: Run):
    (entry,) = run.step(Step("pagemap", {"va": BASE, "count": 1}, where="pagemap")).as_json()["entries"]
    told = int(entry, 16)
    assert told & PRESENT
    assert agree(run, "entries", [hex(told + 5)], [entry])
    assert not agree(run, "entries", [hex((told + 5) ^ 1 << 61)], [entry])
    assert not agree(run, "entries", [hex(PRESENT | BAR // PAGE)], [entry])
    assert not agree(run, "entries", [hex(PRESENT | 7)], [hex(PRESENT | BAR // PAGE)])


def test_which_list_of_the_lru_a_page_is_on_is_not_compared(run: Run):
    assert agree(run, "tokens", ["default", "anon=2", "active=1", "N0=2"], ["default", "anon=2", "N0=2"])
    assert not agree(run, "tokens", ["default", "anon=1", "active=1", "N0=2"], ["default", "anon=2", "N0=2"])


@pytest.mark.parametrize(("recorded", "agrees"), [(4, True), (8, True), (0, False), (12, False)])
def test_more_pages_than_are_young_may_be_referenced(run: Run, recorded: int, agrees: bool):
    fields = {"Rss": 8, "Referenced": 4}
    assert agree(run, "fields", {"Rss": 8, "Referenced": recorded}, fields) == agrees
