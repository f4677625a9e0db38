"""Random sequences of system calls on random machines keep the page tables sound."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pfnmap import Device, DeviceBar, MmStruct
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.run import Run
from pfnmap.vm_flags import VM_ACCESS_FLAGS, VM_WRITE

BASE = 0x1000_0000_0000
PHYS = 0x8_0000_0000

MACHINES: dict[str, dict[str, Any]] = {
    "x86_64 6.12.117": {"arch": "x86_64", "release": "6.12.117"},
    "x86_64 7.3.4, 5 levels": {"arch": "x86_64", "release": "7.3.4", "cpu": {"la57": True}},
    "x86_64 6.1.192": {"arch": "x86_64", "release": "6.1.192"},
    "x86_64 posted-v2 with its fixes": {"arch": "x86_64", "release": "6.12.94"},
    "arm64 4K": {"arch": "arm64", "release": "6.12.117", "cpu": {"hw_access_dirty": False}},
    "arm64 16K": {"arch": "arm64", "release": "6.12.117", "config": {"ARM64_16K_PAGES": "y"}},
    "arm64 64K": {"arch": "arm64", "release": "7.3.4", "config": {"ARM64_64K_PAGES": "y"}},
}

RESULTS = {"madvise": {"ok", "ENOMEM"}, "mprotect": {"ok", "ENOMEM"}, "mremap": {"ok", "EFAULT", "EINVAL"}}
"""What a call may answer here; the others do what they are asked. Nothing is refused."""


@cache
def machine(name: str) -> Kernel:
    spec = dict(MACHINES[name])
    config = {"TRANSPARENT_HUGEPAGE": "y", **spec.pop("config", {})}
    return Kernel.link(drivers=["vfio_pci"], config=config, **spec)


def leaves(mm: MmStruct) -> Iterator[tuple[int, str, int]]:
    """Yield (va, level, entry) of every leaf that is not empty, by going through all tables."""
    yield from _leaves(mm, mm.tables.pgd, 0, 0)


def _leaves(mm: MmStruct, table: Any, depth: int, start: int) -> Iterator[tuple[int, str, int]]:
    tables = mm.tables
    walked = tables.levels[depth]
    ops = mm.kernel.ops
    for index, entry in enumerate(table):
        if entry == tables.empty[walked.name]:
            continue
        va = start + (index << walked.shift)
        if walked.name == "pte":
            yield va, "pte", entry
            continue
        op = tables.steps[walked.name].op
        if getattr(ops, f"{op}_leaf")(entry):
            yield va, op, entry
        else:
            below = mm.machine.phys.tables[tables.steps[walked.name].pgtable(entry)]
            yield from _leaves(mm, below, depth + 1, va)


def reachable(mm: MmStruct) -> Iterator[tuple[str, int]]:
    """Yield (level, physical address) of every table below the top one."""
    yield from _reachable(mm, mm.tables.pgd, 0)


def _reachable(mm: MmStruct, table: Any, depth: int) -> Iterator[tuple[str, int]]:
    tables = mm.tables
    walked = tables.levels[depth]
    if walked.name == "pte":
        return
    step = tables.steps[walked.name]
    for entry in table:
        if entry != tables.empty[walked.name] and not step.leaf(entry):
            address = step.pgtable(entry)
            yield tables.levels[depth + 1].name, address
            yield from _reachable(mm, mm.machine.phys.tables[address], depth + 1)


class Mappings(RuleBasedStateMachine):
    """One process, perhaps a child, and one BAR."""

    @initialize(name=st.sampled_from(sorted(MACHINES)), shift=st.sampled_from([0, 0, 0, 1]))
    def boot(self, name: str, shift: int) -> None:
        self.kernel = machine(name)
        self.geometry = self.kernel.geometry
        self.large = not self.kernel.has("huge-pfnmap")
        pud = self.geometry.size("pud")
        self.size = 16 << 20 if self.large else 2 * pud if pud < 1 << 32 else 1 << 30
        self.unit = 1 << 20 if self.large else self.size // 8
        device = Device("d", "0000:00:01.0", {2: DeviceBar(2, self.size, PHYS)})
        self.run = Run(self.kernel, [device])
        self.memory = True
        self.leaky = False
        self.mmap(slot=0, shift=shift, offset=0, length=8, prot="rw")

    def do(self, op: str, by: str = "parent", **arguments: Any) -> dict[str, Any]:
        if self.run.oops is not None or (by == "child" and self.run.child is None):
            return {}
        answer = self.run.step(Step(op, arguments, by=by, where="step")).as_json()
        assert self.run.oops is not None or answer["result"] in RESULTS.get(op, {"ok"}), (op, answer["result"])
        return answer

    def where(self, slot: int, pages: int) -> int:
        return BASE + slot * self.unit + pages * self.geometry.PAGE_SIZE

    slots = st.integers(0, 7)
    shifts = st.sampled_from([0, 0, 0, 0, 1, 3])
    lengths = st.sampled_from([1, 2, 4, 8])
    who = st.sampled_from(["parent", "parent", "parent", "child"])

    @rule(slot=slots, shift=shifts, offset=st.integers(0, 7), length=lengths, prot=st.sampled_from(["rw", "r", "none"]))
    def mmap(self, slot: int, shift: int, offset: int, length: int, prot: str) -> None:
        length = min(length, 8 - offset)
        self.do(
            "mmap",
            device="d",
            bar=2,
            offset=offset * self.unit,
            length=length * self.unit,
            addr=self.where(slot, shift),
            fixed=True,
            prot=prot,
            shared=True,
        )

    @rule(slot=slots, page=st.integers(0, 600), access=st.sampled_from(["read", "write"]), by=who)
    def touch(self, slot: int, page: int, access: str, by: str) -> None:
        va = self.where(slot, page)
        mm = self.process(by)
        if mm is None or self.run.oops is not None:
            return
        vma = mm.vma_lookup(va)
        answer = self.run.step(Step("touch", {"va": va, "access": access}, by=by, where="step")).as_json()
        mapped = any(start <= va < start + self.geometry.size(level) for start, level, _ in leaves(mm))
        if vma is None or not vma.vm_flags & (VM_WRITE if access == "write" else VM_ACCESS_FLAGS):
            assert answer["result"] == "SIGSEGV"
        elif not self.memory:
            assert answer["result"] == "SIGBUS"
            assert not mapped or self.leaky
        else:
            assert answer["result"] == "ok"
            assert mapped

    @rule(slot=slots, shift=shifts, length=lengths, prot=st.sampled_from(["rw", "r", "none"]), by=who)
    def mprotect(self, slot: int, shift: int, length: int, prot: str, by: str) -> None:
        mm, start, size = self.process(by), self.where(slot, shift), length * self.unit
        if mm is None:
            return
        whole = sum(
            min(vma.vm_end, start + size) - max(vma.vm_start, start) for vma in mm.intersecting(start, start + size)
        )
        answer = self.do("mprotect", by, addr=start, length=size, prot=prot)
        assert not answer or (answer["result"] == "ok") == (whole == size)

    @rule(slot=slots, shift=shifts, length=lengths, by=who)
    def munmap(self, slot: int, shift: int, length: int, by: str) -> None:
        mm, start, end = self.process(by), self.where(slot, shift), self.where(slot, shift) + length * self.unit
        if self.do("munmap", by, addr=start, length=end - start) and mm is not None and self.run.oops is None:
            assert not mm.intersecting(start, end)
            assert self.leaky or not [va for va, _, _ in leaves(mm) if start <= va < end]

    @rule(slot=slots, shift=shifts, length=lengths, to=slots)
    def mremap(self, slot: int, shift: int, length: int, to: int) -> None:
        size = length * self.unit
        new = self.where(to + 8, shift)
        self.do(
            "mremap", addr=self.where(slot, 0), old_len=size, new_len=size, new_addr=new, flags=["MAYMOVE", "FIXED"]
        )

    @rule(slot=slots, length=lengths, advice=st.sampled_from(["HUGEPAGE", "NOHUGEPAGE", "RANDOM", "DONTFORK"]))
    def madvise(self, slot: int, length: int, advice: str) -> None:
        self.leaky = self.leaky or advice == "DONTFORK"
        self.do("madvise", addr=self.where(slot, 0), length=length * self.unit, advice=advice)

    @rule(enabled=st.booleans())
    def pci_memory(self, enabled: bool) -> None:
        if self.do("pci_memory", device="d", enabled=enabled):
            self.memory = enabled
        if not enabled and self.run.oops is None and not self.large:
            # F3's leaves that lie outside every vma of the child are out of reach for the zap too
            assert self.leaky or not [leaf for mm in self.processes() for leaf in leaves(mm)]

    @precondition(lambda self: self.run.child is None and self.run.oops is None)
    @rule()
    def fork(self) -> None:
        before = {va: (level, entry) for va, level, entry in leaves(self.run.parent)}
        self.do("fork")
        assert self.run.child is not None
        ops = self.kernel.ops
        for va, level, entry in leaves(self.run.child):
            theirs = before[va]
            assert theirs[0] == level
            pfn = getattr(ops, f"{level}_pfn")
            assert pfn(entry) == pfn(theirs[1])
            assert getattr(ops, f"{level}_special")(entry) == 1
            assert getattr(ops, f"{level}_write")(entry) == getattr(ops, f"{level}_write")(theirs[1])

    @precondition(lambda self: self.run.child is not None)
    @rule()
    def exit(self) -> None:
        self.do("exit", "child")

    def process(self, by: str) -> MmStruct | None:
        return self.run.child if by == "child" else self.run.parent

    def processes(self) -> list[MmStruct]:
        return [mm for mm in (self.run.parent, self.run.child) if mm is not None]

    @invariant()
    def no_leaf_maps_the_wrong_memory(self) -> None:
        if self.run.oops is not None:
            return
        for mm in self.processes():
            for va, level, entry in leaves(mm):
                phys = getattr(self.kernel.ops, f"{level}_pfn")(entry) << self.geometry.PAGE_SHIFT
                size = self.geometry.size(level)
                assert phys >= PHYS
                assert phys + size <= PHYS + self.size
                covering = mm.intersecting(va, va + size)
                for vma in covering:
                    pgoff = vma.vm_pgoff
                    start = pgoff << self.geometry.PAGE_SHIFT
                    offset = start - PHYS if self.large else start - (2 << 40)
                    assert phys - PHYS == offset + va - vma.vm_start
                assert covering or self.leaky

    @invariant()
    def every_table_is_reachable_and_counted(self) -> None:
        if self.run.oops is not None:
            return
        seen: set[int] = set()
        for mm in self.processes():
            found = list(reachable(mm))
            assert mm.pgtables_bytes == sum(mm.tables.bytes[level] for level, _ in found)
            seen.update(address for _, address in found)
            seen.add(mm.tables.pgd_pa)
        assert seen == set(self.run.machine.phys.tables)


Mappings.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestMappings = Mappings.TestCase
