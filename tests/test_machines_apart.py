"""Any number of machines boot one linked kernel, side by side and in threads, and none notices another."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfnmap import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.plan import Request, advise, plan
from pfnmap.run import Run
from pfnmap.spec import KernelSpec

PAGE, MIB, GIB = 4096, 1 << 20, 1 << 30
PHYS, BASE = 0x10_0000_0000, 0x1000_0000_0000
RELEASES = ("6.1.192", "6.12.117", "7.3.4")

offsets = st.integers(0, 63).map(lambda n: n * 2 * MIB) | st.integers(0, 511).map(lambda n: n * PAGE)
STEPS = st.one_of(
    st.tuples(st.just("touch"), st.fixed_dictionaries({"va": offsets, "access": st.sampled_from(["read", "write"])})),
    st.tuples(st.just("munmap"), st.fixed_dictionaries({"addr": offsets, "length": st.sampled_from([PAGE, 2 * MIB])})),
    st.tuples(
        st.just("mprotect"),
        st.fixed_dictionaries(
            {"addr": offsets, "length": st.sampled_from([PAGE, 2 * MIB]), "prot": st.sampled_from(["r", "rw", "none"])}
        ),
    ),
    st.tuples(st.just("pci_memory"), st.fixed_dictionaries({"device": st.just("dev"), "enabled": st.booleans()})),
    st.tuples(st.just("set_thp_enabled"), st.fixed_dictionaries({"value": st.sampled_from(["always", "never"])})),
    st.tuples(st.just("memory_failure"), st.fixed_dictionaries({"device": st.just("dev"), "offset": offsets})),
    st.tuples(st.just("dev_dbg"), st.fixed_dictionaries({"enabled": st.booleans()})),
    st.tuples(st.just("sleep_ms"), st.fixed_dictionaries({"value": st.integers(0, 6000)})),
    st.tuples(st.just("fork"), st.just({})),
)


@cache
def image(release: str) -> Kernel:
    return Kernel.link("x86_64", ["vfio_pci"], release=release, config={"TRANSPARENT_HUGEPAGE": "y"})


class Program:
    """A run, and what each of its steps gave."""

    def __init__(self, kernel: Kernel, steps: list[tuple[str, dict[str, Any]]]) -> None:
        self.run = Run(kernel, [Device("dev", "0000:00:01.0", {0: DeviceBar(0, 4 * GIB, PHYS)})])
        where = {"device": "dev", "addr": BASE, "length": 2 * GIB, "fixed": True}
        self.left = [("mmap", {**where, "prot": "rw", "shared": True}), *steps]
        self.results: list[Any] = []

    def step(self) -> None:
        """Perform the next step, if there is one left and the kernel lives."""
        if not self.left or self.run.oops is not None:
            return
        op, arguments = self.left.pop(0)
        placed = {k: v + BASE if k in ("va", "addr") and op != "mmap" else v for k, v in arguments.items()}
        if op == "fork" and self.run.child is not None:
            op, placed = "exit", {}
        by = "child" if op == "exit" else "parent"
        self.results.append(self.run.step(Step(op, placed, by=by, where=op)).as_json())

    def finish(self) -> Program:
        """Perform what is left."""
        while self.left and self.run.oops is None:
            self.step()
        return self

    def state(self) -> tuple[Any, ...]:
        """What there is in the end: the results, the words in memory, the knobs."""
        machine = self.run.machine
        tables = {pa: words.tolist() for pa, words in machine.phys.tables.items()}
        return self.results, tables, set(machine.phys.ram), machine.thp, machine.clock_ms, machine.poisoned


@pytest.mark.parametrize("release", RELEASES)
@settings(max_examples=25, deadline=None)
@given(one=st.lists(STEPS, max_size=8), two=st.lists(STEPS, max_size=8), turns=st.lists(st.booleans(), max_size=20))
def test_two_runs_of_one_image_give_what_each_gives_alone(release: str, one: Any, two: Any, turns: list[bool]):
    kernel = image(release)
    alone = [Program(kernel, list(steps)).finish().state() for steps in (one, two)]
    programs = Program(kernel, list(one)), Program(kernel, list(two))
    for turn in turns:
        programs[turn].step()
    assert [program.finish().state() for program in programs] == alone


def test_threads_may_use_one_image():
    kernel = image("6.12.117")
    steps = [("touch", {"va": n * 2 * MIB, "access": "write"}) for n in range(64)]
    steps += [("pci_memory", {"device": "dev", "enabled": False}), ("touch", {"va": 0, "access": "read"})]
    alone = Program(kernel, steps).finish().state()
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda _: Program(kernel, list(steps)).finish().state(), range(8)))
    assert all(state == alone for state in together)


def test_threads_may_ask_one_configuration_why_and_what_else():
    config = KernelSpec(release="6.12.117").link().config
    symbols = ("ARCH_SUPPORTS_PUD_PFNMAP", "TRANSPARENT_HUGEPAGE")

    def asked(number: int) -> list[Any]:
        if number % 2:
            return [config.levers(symbols) for _ in range(60)]
        return [config.explain(symbol) for _ in range(60) for symbol in symbols]

    alone = [asked(number) for number in (0, 1)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            together = list(threads.map(asked, range(4)))
    finally:
        sys.setswitchinterval(interval)
    assert together == alone * 2


def test_threads_may_plan_and_advise_on_one_image():
    requests = [Request(0, PHYS, 4 * GIB, policy="kernel"), Request(0, PHYS + 4096, 4 * GIB, policy="aligned")]

    def asked(kernel: Kernel) -> tuple[Any, Any]:
        return plan(kernel, requests).as_json(), [one.as_json() for one in advise(kernel, requests, most=1)]

    link = KernelSpec(release="6.12.117", thp="never").link
    alone, kernel = asked(link()), link()
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(asked, [kernel] * 4)) == [alone] * 4


def test_a_run_leaves_the_one_before_it_as_it_was():
    kernel = image("6.12.117")
    first = Program(kernel, [("touch", {"va": 0, "access": "write"})]).finish()
    before = first.state()
    second = Program(kernel, [("touch", {"va": GIB, "access": "write"})]).finish()
    assert first.state() == before
    assert first.run.machine.phys.tables[first.run.parent.tables.pgd_pa] is first.run.parent.tables.pgd
    assert second.run.machine is not first.run.machine
