"""Checks from end to end: a BAR mapped, faulted in, looked up, forked, protected and zapped by the mm core.

A mapping is placed so that its leaves are of one level, at the highest physical address that the format holds and near
the end of user space. After each step two things are asked: the mm core's own lookup, which goes through the plugin's
ops, and `pfnmap.testing.raw_walk`, which does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.entry import Level
from pfnmap.contract.vma import File, MmStruct
from pfnmap.mm.boot import boot
from pfnmap.mm.fault import user_access
from pfnmap.mm.fork import dup_mmap, exit_mmap
from pfnmap.mm.mmap import do_mmap, do_munmap
from pfnmap.mm.mprotect import do_mprotect
from pfnmap.testing.arch_subject import LEAF_LEVELS, ArchSubject
from pfnmap.testing.bar_driver import BarDriver
from pfnmap.testing.check import Check, Violation
from pfnmap.testing.lookup import lookup
from pfnmap.testing.raw_walk import translate
from pfnmap.trace import Bug, Install, KernelDied, Warn
from pfnmap.vm_flags import VM_READ, VM_WRITE

__all__ = ["CHECKS"]


class Stage(NamedTuple):
    """What must hold after a step: in this address space the window is mapped (`level`), or nothing is (None), and user
    space may read there or not."""

    after: str
    mm: MmStruct
    level: Level | None
    readable: bool = True


@dataclass(frozen=True)
class Window:
    """A mapping and what it maps, placed for leaves of one level: addresses and lengths in bytes."""

    level: Level
    va: int
    length: int
    phys: int
    step: int

    def addresses(self) -> Iterator[tuple[int, int]]:
        """Yield (virtual, physical): the first, a middle and the last byte of each leaf."""
        for start in range(0, self.length, self.step):
            for offset in (start, start + self.step // 2 + 1, start + self.step - 1):
                yield self.va + offset, self.phys + offset


class Mapped:
    """A booted machine with one device and one process that maps a window of its BAR."""

    def __init__(self, subject: ArchSubject, level: Level) -> None:
        self.kernel = kernel = subject.kernel
        self.window = _window(subject, level)
        span = _span(subject)
        self.machine = boot(kernel, [(self.window.phys, 2 * span)])
        device = Device("kit", "0000:00:01.0", {0: DeviceBar(0, 2 * span, self.window.phys)})
        self.file: File = cast("BarDriver", self.machine.modules[BarDriver.name]).probe(device)
        self.mm = MmStruct(self.machine)

    def mmap(self) -> None:
        """Map the window, for reading and writing."""
        w = self.window
        got = do_mmap(self.mm, self.file, w.va, w.length, VM_READ | VM_WRITE, 0, fixed=True, shared=True)
        if got != w.va:
            raise Violation(f"mmap of {w.length:#x} bytes at {w.va:#x} gave {got:#x}")

    def touch(self, write: bool, mm: MmStruct | None = None) -> None:
        """Access every leaf of the window once."""
        w = self.window
        for start in range(w.va, w.va + w.length, w.step):
            got = user_access(mm or self.mm, start + w.step // 2, write)
            if got.result != "ok":
                raise Violation(f"a {'store to' if write else 'load from'} {start + w.step // 2:#x} gave {got.result}")

    def protect(self, prot: int) -> None:
        """mprotect the window."""
        if error := do_mprotect(self.mm, self.window.va, self.window.length, prot):
            raise Violation(f"mprotect of the window to {prot} gave {error}")


def _span(subject: ArchSubject) -> int:
    """Return the bytes of the largest leaf that this machine uses for pfnmaps."""
    return max(subject.geometry.size(x) for x in LEAF_LEVELS if x == "pte" or f"pfnmap:{x}" in subject.capabilities)


def _window(subject: ArchSubject, level: Level) -> Window:
    """Place two leaves of a level: congruent with the BAR modulo that level's size and no larger one's, and below the
    cookies that no access reaches."""
    geometry = subject.geometry
    span, size = _span(subject), geometry.size(level)
    cookies = subject.arch.cookies_from
    phys = (subject.physical_mask if cookies is None else min(subject.physical_mask, cookies - 1)) & -(2 * span)
    top = (geometry.task_size & -span) - 2 * span
    va = top if size == span else top + size
    return Window(level, va, 2 * size, phys, size)


def life(subject: ArchSubject, level: Level) -> Iterator[Stage]:
    """Map, touch, fork, zap, touch again, unmap; yield what must hold after each."""
    on = Mapped(subject, level)
    mm, w = on.mm, on.window
    on.mmap()
    yield Stage("mmap", mm, None)
    on.touch(write=False)
    _check_installed(on)
    yield Stage("a load from each leaf", mm, level)
    on.touch(write=True)
    yield Stage("a store to each leaf", mm, level)
    child = dup_mmap(mm)
    if child is None:
        raise Violation("fork failed: track_pfn_copy refuses a copy of a shared mapping")
    yield Stage("fork, in the child", child, level)
    on.touch(write=True, mm=child)
    yield Stage("fork and a store by the child, in the parent", mm, level)
    on.machine.mm.unmap_mapping_range(on.file.f_mapping, 0, 0)
    yield Stage("unmap_mapping_range, in the parent", mm, None)
    yield Stage("unmap_mapping_range, in the child", child, None)
    on.touch(write=True)
    yield Stage("a store after unmap_mapping_range", mm, level)
    exit_mmap(child)
    yield Stage("the child's exit, in the parent", mm, level)
    if error := do_munmap(mm, w.va, w.length):
        raise Violation(f"munmap gave {error}")
    if mm.pgtables_bytes:
        raise Violation(f"munmap left {mm.pgtables_bytes} bytes of page tables")
    exit_mmap(mm)


def protection(subject: ArchSubject, level: Level) -> Iterator[Stage]:
    """Map, write, mprotect to read-only, to nothing, and back."""
    on = Mapped(subject, level)
    on.mmap()
    on.touch(write=True)
    on.protect(VM_READ)
    yield Stage("mprotect to read-only", on.mm, level)
    on.touch(write=False)
    if (got := user_access(on.mm, on.window.va, True).result) == "ok":
        raise Violation(f"a store to {on.window.va:#x} is {got} after mprotect to read-only")
    on.protect(0)
    if (got := user_access(on.mm, on.window.va, False).result) == "ok":
        raise Violation(f"a load from {on.window.va:#x} is {got} after mprotect to PROT_NONE")
    yield Stage("mprotect to PROT_NONE", on.mm, level, readable=False)
    on.protect(VM_READ | VM_WRITE)
    yield Stage("mprotect to PROT_NONE and back", on.mm, level)
    on.touch(write=True)
    yield Stage("a store after mprotect back", on.mm, level)
    on.machine.mm.unmap_mapping_range(on.file.f_mapping, 0, 0)
    yield Stage("unmap_mapping_range", on.mm, None)
    exit_mmap(on.mm)


def _check_installed(on: Mapped) -> None:
    events = [event for event in on.machine.trace.events if isinstance(event, Install)]
    levels = {event.level for event in events}
    if levels != {on.window.level}:
        raise Violation(f"the loads installed {', '.join(sorted(levels)) or 'nothing'}, not {on.window.level} leaves")
    for event in events:
        expected = (on.window.phys + event.va - on.window.va) >> on.kernel.geometry.PAGE_SHIFT
        if event.pfn != expected:
            raise Violation(
                f"the {event.level} leaf at {event.va:#x} was installed for pfn {event.pfn:#x}, not {expected:#x}"
            )


Scene = Callable[[ArchSubject, Level], Iterator[Stage]]


def _looked_up(scene: Scene) -> Callable[[ArchSubject, Level], None]:
    def check(subject: ArchSubject, level: Level) -> None:
        for stage in _played(subject, level, scene):
            if not stage.readable:  # a PROT_NONE leaf at the PUD is not present on x86
                continue
            for va, physical in _window(subject, level).addresses():
                expected = physical >> subject.geometry.PAGE_SHIFT if stage.level else None
                got = lookup(stage.mm, va)
                if got != expected:
                    raise Violation(
                        f"after {stage.after}: {va:#x} is looked up as {_pfn(got)}, it maps {_pfn(expected)}"
                    )

    return check


def _walked(scene: Scene) -> Callable[[ArchSubject, Level], None]:
    def check(subject: ArchSubject, level: Level) -> None:
        for stage in _played(subject, level, scene):
            for va, physical in _window(subject, level).addresses():
                got = translate(stage.mm, va)
                if not stage.readable:
                    if got is not None and got.readable and "permissions" in subject.capabilities:
                        raise Violation(
                            f"after {stage.after}: the CPU can read {va:#x} by the {got.level} word {got.word:#x}"
                        )
                elif stage.level is None:
                    if got is not None:
                        raise Violation(
                            f"after {stage.after}: the CPU still finds {va:#x} mapped to {got.physical:#x} "
                            f"by the {got.level} word {got.word:#x}"
                        )
                elif got is None:
                    raise Violation(f"after {stage.after}: the CPU finds {va:#x} not mapped, it maps {physical:#x}")
                elif got.physical != physical:
                    raise Violation(
                        f"after {stage.after}: the CPU reads {va:#x} at {got.physical:#x}, it maps {physical:#x}; "
                        f"the {got.level} word is {got.word:#x}"
                    )

    return check


def _pfn(pfn: int | None) -> str:
    return "not mapped" if pfn is None else f"pfn {pfn:#x}"


def _played(subject: ArchSubject, level: Level, scene: Scene) -> Iterator[Stage]:
    """Yield the stages; what the kernel complains about, or dies of, is a violation."""
    after = "the start"
    try:
        for stage in scene(subject, level):
            after = stage.after
            for event in stage.mm.machine.trace.drain():
                if isinstance(event, (Bug, Warn)):
                    raise Violation(f"after {after}: the kernel says {event.text!r}")
            yield stage
    except KernelDied as death:
        raise Violation(f"after {after}: {death}") from None


_PFNMAP = ("pfnmap:X",)

CHECKS = (
    Check(
        "mm-life",
        "mmap, fault, fork, zap and unmap through the mm core: its own lookup finds what was mapped",
        _looked_up(life),
        _PFNMAP,
        LEAF_LEVELS,
    ),
    Check(
        "mm-protection",
        "mprotect to read-only, to nothing and back through the mm core, for its own lookup",
        _looked_up(protection),
        _PFNMAP,
        LEAF_LEVELS,
    ),
    Check(
        "words-life",
        "the same life, seen by a walk of the raw words that asks no op: the CPU gets where it should",
        _walked(life),
        (*_PFNMAP, "words"),
        LEAF_LEVELS,
    ),
    Check(
        "words-protection",
        "the same protections, seen by a walk of the raw words that asks no op",
        _walked(protection),
        (*_PFNMAP, "words"),
        LEAF_LEVELS,
    ),
)
