"""An MMU as the judge: the tables that the mm core built, loaded into an emulated CPU that then uses them.

An architecture names its CPU in `pfnmap.Arch.mmu_cpu`; the CPUs are in `pfnmap.testing.unicorn_cpu`, which needs the
extra ``pfnmap[mmu]``. Without it, or for a geometry that the CPU has not, a check is skipped and says why. Only boots
whose `cpu` state is that of the emulated CPU are judged (the capability ``emulator``).

What is expected of an access follows from the VM_ flags of its mapping, in ``mmu-access`` from `Arch.mmu_access`. See
docs/mmu-judge.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Final
from unittest import SkipTest

from pfnmap.contract.entry import Level
from pfnmap.contract.vma import MmStruct
from pfnmap.errors import PluginError, Refused
from pfnmap.kernel import Kernel
from pfnmap.mm.fault import user_access
from pfnmap.mm.mmap import do_munmap
from pfnmap.testing.arch_subject import LEAF_LEVELS, ArchSubject, Leaf, shown
from pfnmap.testing.check import Check, Violation, bits
from pfnmap.testing.mm_checks import Mapped, life
from pfnmap.vm_flags import VM_EXEC, VM_READ, VM_WRITE

if TYPE_CHECKING:
    from pfnmap.testing.unicorn_cpu import Access, UnicornCpu

__all__ = ["CHECKS"]

_PAGE: Final = -0x1000  # masks the 4K page of an address: the emulator's memory comes in these
_STORED: Final = 0x5A5A_5A5A_5A5A_5A5A


def _emulated(kernel: Kernel) -> type[UnicornCpu]:
    """Return the CPU that a kernel's architecture names. Raises SkipTest where no emulator is installed."""
    declared = kernel.arch.mmu_cpu
    assert declared is not None, "the capability `emulator` is asked for"
    try:
        from pfnmap.testing.unicorn_cpu import UnicornCpu
    except ImportError as error:
        raise SkipTest(f"no emulator: {error} (pip install 'pfnmap[mmu]')") from None
    module, _, name = declared.path.partition(":")
    try:
        cpu = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise PluginError(kernel.arch.name, f"mmu_cpu names {declared.path!r}: {error}") from None
    if not (isinstance(cpu, type) and issubclass(cpu, UnicornCpu)):
        raise PluginError(kernel.arch.name, f"mmu_cpu names {declared.path!r}, which is no UnicornCpu")
    return cpu


def _judged(subject: ArchSubject) -> ArchSubject:
    """Return the subject with no more physical address bits than the emulated CPU has."""
    narrowed = ArchSubject(subject.kernel, subject.machine)
    narrowed.physical_mask = subject.physical_mask & ((1 << _emulated(subject.kernel).physical_bits) - 1)
    return narrowed


def _boot(kernel: Kernel, mm: MmStruct, addresses: Iterable[int]) -> UnicornCpu:
    """Return a CPU on the tables of an address space, with memory at physical addresses. Raises SkipTest where this CPU
    does not have the kernel's geometry."""
    pages = {address & _PAGE for address in addresses}
    try:
        return _emulated(kernel)(kernel.geometry, mm.tables.pgd_pa, mm.machine.phys.tables, pages)
    except Refused as error:
        raise SkipTest(str(error)) from None


# Whole mappings


def mapping_life(subject: ArchSubject, level: Level) -> None:
    judged = _judged(subject)
    window = Mapped(judged, level).window
    for stage in life(judged, level):
        if stage.level:  # fork leaves old entries in the child, on which a CPU may fault
            for va in range(window.va, window.va + window.length, window.step):
                user_access(stage.mm, va, False)
        cpu = _boot(subject.kernel, stage.mm, (physical for _, physical in window.addresses()))
        allowed = VM_READ if stage.level else 0
        for va, physical in window.addresses():
            _check_load(cpu, va, physical, allowed, f"after {stage.after}")


def permissions(subject: ArchSubject, level: Level) -> None:
    on = Mapped(_judged(subject), level)
    on.mmap()
    for prot in (VM_READ | VM_WRITE, VM_READ, 0, VM_READ | VM_WRITE):
        _check_protection(on, prot)
    if error := do_munmap(on.mm, on.window.va, on.window.length):
        raise Violation(f"munmap gave {error}")
    cpu = _boot(on.kernel, on.mm, (physical for _, physical in on.window.addresses()))
    for va, physical in on.window.addresses():
        _check_load(cpu, va, physical, 0, "after munmap")


def _check_protection(on: Mapped, prot: int) -> None:
    """Protect the window, access it as that allows, and let the CPU try everything."""
    window = on.window
    on.protect(prot)
    if prot:
        on.touch(write=bool(prot & VM_WRITE))
    cpu = _boot(on.kernel, on.mm, (physical for _, physical in window.addresses()))
    when = f"with PROT_{'|PROT_'.join(_words(prot))}"
    for va, physical in window.addresses():
        _check_load(cpu, va, physical, prot, when)
        _check_store(cpu, va, physical, prot, when)
        _expect(cpu.execute(va), False, f"{when}, jumping to {va:#x}")


def _words(prot: int) -> list[str]:
    return [name for flag, name in ((VM_READ, "READ"), (VM_WRITE, "WRITE")) if prot & flag] or ["NONE"]


def _check_load(cpu: UnicornCpu, va: int, physical: int, allowed: int, when: str) -> None:
    got = cpu.load(va)
    _expect(got, bool(allowed & VM_READ), f"{when}, a load from {va:#x}")
    if allowed & VM_READ and got.value != physical & -cpu.UNIT:
        raise Violation(f"{when}, a load from {va:#x} reads the bytes of {got.value:#x}, {physical:#x} is mapped there")


def _check_store(cpu: UnicornCpu, va: int, physical: int, allowed: int, when: str) -> None:
    where = cpu.word_at(physical)
    before = cpu.peek(where)
    _expect(cpu.store(va, _STORED), bool(allowed & VM_WRITE), f"{when}, a store to {va:#x}")
    after = cpu.peek(where)
    if after != (_STORED if allowed & VM_WRITE else before):
        raise Violation(f"{when}, a store to {va:#x} leaves {after:#x} in memory at {where:#x}")
    cpu.poke(where, before)


def _expect(got: Access, allowed: bool, what: str) -> None:
    if not (got.done if allowed else got.fault):
        raise Violation(f"{what} came to {got.how}, {'though it is allowed' if allowed else 'not to a page fault'}")


# Single leaves


class _Slot:
    """The slot of the first leaf of a window, in a CPU that has memory wherever some leaves point."""

    def __init__(self, subject: ArchSubject, level: Level, leaves: Iterable[Leaf]) -> None:
        on = Mapped(_judged(subject), level)
        on.mmap()
        on.touch(write=False)
        middle = subject.geometry.size(level) // 2
        self.va = on.window.va + middle
        found = {leaf.entry: (leaf.pfn << subject.geometry.PAGE_SHIFT) + middle for leaf in leaves}
        self.cpu = _boot(on.kernel, on.mm, found.values())
        *_, (_, (table, index)) = on.mm.tables.walk(on.window.va)
        (address,) = [pa for pa, words in on.machine.phys.tables.items() if words is table]
        self._word = address + 8 * index
        self._physical = {entry: pa for entry, pa in found.items() if pa & _PAGE in self.cpu.memory}
        assert self._physical, "no leaf points to memory: nothing would be judged"

    def leaves(self, leaves: Iterable[Leaf]) -> Iterator[Leaf]:
        """Yield those of the leaves that point to memory."""
        return (leaf for leaf in leaves if leaf.entry in self._physical)

    def physical(self, leaf: Leaf) -> int:
        """Return what the address maps with a leaf."""
        return self._physical[leaf.entry]

    def access(self, entry: int, kind: str) -> tuple[Access, int]:
        """Put an entry into the slot and access its middle; return what came of it, and the entry after it."""
        self.cpu.poke(self._word, entry)
        got = self.cpu.store(self.va, _STORED) if kind == "store" else getattr(self.cpu, kind)(self.va)
        return got, self.cpu.peek(self._word)

    def restore(self, leaf: Leaf) -> None:
        """Undo a store through a leaf."""
        physical = self.physical(leaf)
        self.cpu.poke(self.cpu.word_at(physical), physical)


def special_is_plain(subject: ArchSubject, level: Level) -> None:
    mkspecial = subject.op(level, "mkspecial")
    plain = [leaf for leaf in subject.leaves(level) if not leaf.special]
    slot = _Slot(subject, level, plain)
    for leaf in slot.leaves(plain):
        special = mkspecial(leaf.entry)
        for kind in ("load", "execute", "store"):
            got, after = slot.access(leaf.entry, kind)
            slot.restore(leaf)
            got_special, after_special = slot.access(special, kind)
            slot.restore(leaf)
            if got_special != got:
                raise Violation(
                    f"a {kind} through {special:#x} came to {_shown(got_special)}, and without special, which is "
                    f"{shown(level, leaf)}, to {_shown(got)}"
                )
            if after_special != mkspecial(after):
                raise Violation(
                    f"a {kind} leaves {after_special:#x} of the special {special:#x} and {after:#x} of "
                    f"{shown(level, leaf)}: not the same but for special"
                )


def access_agrees(subject: ArchSubject, level: Level) -> None:
    leaves = subject.leaves(level)
    slot = _Slot(subject, level, leaves)
    for leaf in slot.leaves(leaves):
        for kind in ("load", "store"):
            entry, allowed = subject.arch.mmu_access(level, leaf.entry, kind == "store")
            got, after = slot.access(leaf.entry, kind)
            what = f"a {kind} through {shown(level, leaf)}"
            _expect(got, allowed, what)
            if not allowed:
                continue
            physical = slot.physical(leaf)
            word = slot.cpu.peek(slot.cpu.word_at(physical))
            if (got.value, word) != ((physical, physical) if kind == "load" else (0, _STORED)):
                raise Violation(f"{what} reaches other memory than {physical:#x}, which it maps")
            if after != entry:
                raise Violation(f"{what} leaves {after:#x}, mmu_access says {entry:#x}: {bits(after, entry)}")
            slot.restore(leaf)


def execution(subject: ArchSubject, level: Level) -> None:
    never = [leaf for leaf in subject.leaves(level) if not leaf.vm_flags & VM_EXEC]
    # Mapped cached: some architectures execute nothing else.
    executable = [_fresh(subject, level, flags) for flags in range(16) if flags & VM_EXEC]
    slot = _Slot(subject, level, [*never, *executable])
    for leaf in slot.leaves([*never, *executable]):
        got, _ = slot.access(leaf.entry, "execute")
        _expect(got, leaf in executable, f"jumping through {shown(level, leaf)}")


def _fresh(subject: ArchSubject, level: Level, flags: int) -> Leaf:
    prot, pfn = subject.prot(flags), subject.pfns(level)[-1]
    entry = subject.op(level, "mkspecial")(subject.fresh(level, pfn, prot))
    return Leaf(entry, pfn, flags, prot, True, (f"pfn_{level}({pfn:#x}, {prot:#x}) of a new mapping",))


def _shown(got: Access) -> str:
    return f"the bytes of {got.value:#x}" if got.value else got.how


_NEEDS = ("pfnmap:X", "emulator")

CHECKS: Final = (
    Check(
        "mmu-life",
        "map, fault, fork, zap and unmap: an emulated MMU reads the bytes that are mapped, or faults",
        mapping_life,
        _NEEDS,
        LEAF_LEVELS,
    ),
    Check(
        "mmu-permissions",
        "an emulated MMU lets a mapping be read and written as mprotect said, and not be executed",
        permissions,
        _NEEDS,
        LEAF_LEVELS,
    ),
    Check(
        "mmu-execute",
        "an emulated MMU executes what a leaf made with VM_EXEC maps, and no other",
        execution,
        _NEEDS,
        LEAF_LEVELS,
    ),
    Check(
        "mmu-special",
        "to an emulated MMU a special leaf is a plain one: special is the kernel's bit alone",
        special_is_plain,
        _NEEDS,
        LEAF_LEVELS,
    ),
    Check(
        "mmu-access",
        "an emulated MMU allows what mmu_access allows, at the bytes of the pfn, and leaves the same entry",
        access_agrees,
        _NEEDS,
        LEAF_LEVELS,
    ),
)
