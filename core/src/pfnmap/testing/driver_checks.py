"""Checks of a driver: what it maps, with which leaves, and what it does when memory decode is off.

The rules are those of the kernel's fault path (mm/memory.c) for a driver with `huge_fault`, as vfio-pci keeps them
(drivers/vfio/pci/vfio_pci_core.c; the matrix.* and disable.* records).
"""

from __future__ import annotations

from pfnmap.contract.entry import Level
from pfnmap.contract.vma import File, MmStruct, VmFault
from pfnmap.mm.fault import user_access
from pfnmap.mm.fork import dup_mmap, exit_mmap
from pfnmap.mm.mmap import do_munmap
from pfnmap.testing.check import Check, Violation
from pfnmap.testing.driver_subject import LEAF_LEVELS, DriverSubject, Opened
from pfnmap.testing.lookup import lookup
from pfnmap.trace import Bug, Event, Fault, Install, Warn
from pfnmap.vm_flags import VM_DONTDUMP, VM_DONTEXPAND, VM_IO, VM_MIXEDMAP, VM_PFNMAP

__all__ = ["CHECKS"]

_KINDS = ("address", "size", "int", "signed", "bool", "str", "list", "bar")


def actions_are_sound(subject: DriverSubject) -> None:
    for name, action in subject.module.actions().items():
        if unknown := sorted(set(action.arguments.values()) - set(_KINDS)):
            raise Violation(f"action {name}: {', '.join(unknown)} is no kind of argument ({', '.join(_KINDS)})")
        if unknown := sorted(action.optional - action.arguments.keys()):
            raise Violation(f"action {name}: {', '.join(unknown)} is optional, but no argument")


def selects_are_met(subject: DriverSubject) -> None:
    if problems := subject.kernel.config.bad_selects:
        raise Violation("; ".join(problems))


# Binding and mapping


def probe_opens(subject: DriverSubject) -> None:
    for _ in range(2):  # the second boot must know nothing of the first
        file = subject.open().file
        if not isinstance(file, File):
            raise Violation(f"probe gave {file!r}, which is no open file of this driver")


def offsets_are_apart(subject: DriverSubject) -> None:
    page = subject.kernel.geometry.PAGE_SIZE
    taken: dict[range, int] = {}
    for index, bar in subject.device.bars.items():
        start = subject.driver.mmap_offset(index, 0)
        if start % page:
            raise Violation(f"mmap_offset({index}, 0) is {start:#x}, no multiple of the page size")
        if subject.driver.mmap_offset(index, bar.size - page) != start + bar.size - page:
            raise Violation(f"mmap_offset of BAR {index} does not go up byte by byte")
        for other, who in taken.items():
            if start < other.stop and other.start < start + bar.size:
                raise Violation(f"BARs {who} and {index} share file offsets")
        taken[range(start, start + bar.size)] = index


def mmap_marks_the_vma(subject: DriverSubject) -> None:
    on = subject.open()
    vma = on.mapped(subject.bar, 0, subject.kernel.geometry.PAGE_SIZE, subject.va)
    flags = vma.vm_flags
    if not flags & (VM_PFNMAP | VM_MIXEDMAP):
        raise Violation(f"mmap leaves a vma with flags {flags:#x}: neither VM_PFNMAP nor VM_MIXEDMAP")
    for name, flag in {"VM_IO": VM_IO, "VM_DONTEXPAND": VM_DONTEXPAND, "VM_DONTDUMP": VM_DONTDUMP}.items():
        if not flags & flag:
            raise Violation(f"mmap leaves a vma with flags {flags:#x}, without {name}")
    if vma.vm_ops is None:
        raise Violation("mmap leaves a vma without vm_ops: the mm takes it for anonymous memory")


def refuses_beyond(subject: DriverSubject) -> None:
    page = subject.kernel.geometry.PAGE_SIZE
    for index, bar in subject.device.bars.items():
        size = -(-bar.size // page) * page
        for offset, length in ((0, size + page), (size, page), (size - page, 2 * page)):
            got = subject.open().mmap(index, offset, length, subject.va)
            if got >= 0:
                raise Violation(
                    f"mmap of {length:#x} bytes from {offset:#x} of BAR {index} is allowed; it has {size:#x}"
                )


# Faults


def maps_the_right_pages(subject: DriverSubject) -> None:
    page = subject.kernel.geometry.PAGE_SIZE
    for index, bar in subject.device.bars.items():
        for offset in {0, page, bar.size // 2} if bar.size > page else {0}:
            _check_pages(subject, index, offset, min(bar.size - offset, 4 * page), subject.va + offset)


def right_pages_everywhere(subject: DriverSubject, level: Level) -> None:
    """Leaves of this level, if the driver makes them: congruent with the BAR modulo its size and no larger one's."""
    size = subject.kernel.geometry.size(level)
    va = subject.va if size == subject.span else subject.va + size
    _check_pages(subject, subject.bar, 0, 2 * size, va)


def unaligned_falls_back(subject: DriverSubject) -> None:
    page = subject.kernel.geometry.PAGE_SIZE
    length = subject.device.bars[subject.bar].size - page
    _check_pages(subject, subject.bar, 0, length, subject.va + page)
    _check_pages(subject, subject.bar, page, length, subject.va)


def _check_pages(subject: DriverSubject, index: int, offset: int, length: int, va: int) -> None:
    """Map a part of a BAR, touch it here and there, and see that each page is where it should be."""
    kernel, bar = subject.kernel, subject.device.bars[index]
    page = kernel.geometry.PAGE_SIZE
    on = subject.open()
    on.mapped(index, offset, length, va)
    ends = {0, length // 2 & -page, length - page}
    steps = {x for level in LEAF_LEVELS for n in (1, 2) if (x := n * kernel.geometry.size(level)) < length}
    for at in sorted(ends | steps | {x - page for x in steps}):
        events = on.touch(va + at + page // 2, write=True)
        _check_installs(on, events, va, length, bar.phys + offset)
        got = lookup(on.mm, va + at)
        expected = (bar.phys + offset + at) >> kernel.geometry.PAGE_SHIFT
        if got != expected:
            found = "nothing" if got is None else f"pfn {got:#x}"
            raise Violation(f"{va + at:#x} is byte {offset + at:#x} of BAR {index}, pfn {expected:#x}; it maps {found}")
    exit_mmap(on.mm)


def _check_installs(on: Opened, events: list[Event], va: int, length: int, phys: int) -> None:
    geometry = on.kernel.geometry
    for event in events:
        if not isinstance(event, Install):
            continue
        level: Level = event.level  # type: ignore[assignment]
        size = geometry.size(level) * event.count
        if event.va < va or event.va + size > va + length:
            raise Violation(
                f"a {level} leaf maps [{event.va:#x}, {event.va + size:#x}), the vma is [{va:#x}, {va + length:#x})"
            )
        pfn = (phys + event.va - va) >> geometry.PAGE_SHIFT
        order = geometry.shift(level) - geometry.PAGE_SHIFT
        if event.pfn % (1 << order):
            raise Violation(
                f"a {level} leaf at {event.va:#x} is inserted for pfn {event.pfn:#x}, not aligned to its order"
            )
        if event.pfn != pfn:
            raise Violation(
                f"a {level} leaf at {event.va:#x} is inserted for pfn {event.pfn:#x}, that place is {pfn:#x}"
            )


def leaf_has_the_order_asked_for(subject: DriverSubject, level: Level) -> None:
    geometry = subject.kernel.geometry
    size = geometry.size(level)
    va = subject.va if size == subject.span else subject.va + size
    on = subject.open()
    on.mapped(subject.bar, 0, 2 * size, va)
    installed: list[Install] = []
    for event in on.touch(va + size):
        if isinstance(event, Install):
            installed.append(event)
        if isinstance(event, Fault):
            orders = {geometry.shift(i.level) - geometry.PAGE_SHIFT for i in installed}  # type: ignore[arg-type]
            if event.ret == "NOPAGE" and orders != {event.order}:
                got = f"leaves of order {sorted(orders)}" if orders else "no leaf"
                raise Violation(f"the handler answers NOPAGE to order {event.order} and installs {got}")
            if event.ret != "NOPAGE" and installed:
                raise Violation(f"the handler answers {event.ret} to order {event.order}, but installs {installed[0]}")
            installed = []


def gives_huge_leaves(subject: DriverSubject, level: Level) -> None:
    size = subject.kernel.geometry.size(level)
    va = subject.va if size == subject.span else subject.va + size
    on = subject.open()
    on.mapped(subject.bar, 0, 2 * size, va)
    levels = {event.level for event in on.touch(va + size) if isinstance(event, Install)}
    if levels != {level}:
        raise Violation(
            f"a touch of an aligned block of {size:#x} bytes is mapped with {', '.join(sorted(levels)) or 'nothing'}, "
            f"where a {level} leaf fits"
        )


def other_orders_fall_back(subject: DriverSubject) -> None:
    geometry = subject.kernel.geometry
    on = subject.open()
    vma = on.mapped(subject.bar, 0, subject.span, subject.va)
    assert vma.vm_ops is not None
    assert vma.vm_ops.huge_fault is not None
    known = {0, geometry.PMD_ORDER, geometry.PUD_ORDER}
    for order in sorted({1, 3, geometry.PMD_ORDER + 1} - known):
        on.machine.trace.drain()
        ret = vma.vm_ops.huge_fault(VmFault(vma, subject.va, subject.va, 0), order)
        if ret != on.machine.mm.VM_FAULT_FALLBACK:
            raise Violation(f"huge_fault answers {ret:#x} to order {order}, which no level has; it must fall back")


# Taking away


def memory_off(subject: DriverSubject) -> None:
    on = subject.open()
    page = subject.kernel.geometry.PAGE_SIZE
    on.mapped(subject.bar, 0, subject.span, subject.va)
    on.touch(subject.va)
    run = on.driver.actions()["pci_memory"].run
    run(on, device=subject.device.name, enabled=False)
    if (pfn := lookup(on.mm, subject.va)) is not None:
        raise Violation(f"memory decode is off, and {subject.va:#x} still maps pfn {pfn:#x}")
    for va in (subject.va, subject.va + subject.span - page):
        if (got := user_access(on.mm, va, False).result) != "SIGBUS":
            raise Violation(f"memory decode is off, and a load from {va:#x} gave {got}; it must be SIGBUS")
    run(on, device=subject.device.name, enabled=True)
    on.touch(subject.va)
    expected = subject.device.bars[subject.bar].phys >> subject.kernel.geometry.PAGE_SHIFT
    if (pfn := lookup(on.mm, subject.va)) != expected:
        raise Violation(f"memory decode is on again, and {subject.va:#x} maps {pfn}, not pfn {expected:#x}")


def fork_and_unmap(subject: DriverSubject) -> None:
    on = subject.open()
    on.mapped(subject.bar, 0, subject.span, subject.va)
    on.touch(subject.va, write=True)
    child = dup_mmap(on.mm)
    if child is None:
        raise Violation("fork failed: the architecture does not track a copy of the mapping")
    on.touch(subject.va, mm=child)
    expected = subject.device.bars[subject.bar].phys >> subject.kernel.geometry.PAGE_SHIFT
    for who, mm in (("parent", on.mm), ("child", child)):
        if (pfn := lookup(mm, subject.va)) != expected:
            raise Violation(f"after fork the {who} finds {pfn} at {subject.va:#x}, not pfn {expected:#x}")
    _exit(on, child)
    if error := do_munmap(on.mm, subject.va, subject.span):
        raise Violation(f"munmap gave {error}")
    if on.file.f_mapping.i_mmap:
        raise Violation("a vma is still linked to the file after munmap and exit")
    _exit(on, on.mm)


def _exit(on: Opened, mm: MmStruct) -> None:
    on.machine.trace.drain()
    exit_mmap(mm)
    for event in on.machine.trace.drain():
        if isinstance(event, (Bug, Warn)):
            raise Violation(f"on exit the kernel says {event.text!r}")
    if mm.pgtables_bytes:
        raise Violation(f"exit leaves {mm.pgtables_bytes} bytes of page tables")


_BINDS = ("binds",)
_MAPS = ("maps",)
_HUGE = ("maps", "huge", "pfnmap:X")

CHECKS = (
    Check("actions", "scenarios check an action's arguments by what it says of them", actions_are_sound),
    Check(
        "kconfig-selects",
        "a select pushes a symbol past its dependencies; the kernel's conf warns of that",
        selects_are_met,
    ),
    Check(
        "probe-opens",
        "user space maps a device through the file that probe returns, after every boot",
        probe_opens,
        _BINDS,
    ),
    Check("offsets-apart", "each byte of each BAR has a file offset of its own", offsets_are_apart, _BINDS),
    Check("vma-flags", "the mm core, core dumps and mremap go by the flags that mmap sets", mmap_marks_the_vma, _MAPS),
    Check("refuses-beyond", "what is behind the BAR belongs to somebody else", refuses_beyond, _BINDS),
    Check("right-pages", "a fault maps the page of the BAR that was asked for", maps_the_right_pages, _MAPS),
    Check(
        "right-pages-at",
        "the same where leaves of this level fit",
        right_pages_everywhere,
        (*_MAPS, "pfnmap:X"),
        LEAF_LEVELS,
    ),
    Check(
        "unaligned-falls-back",
        "a leaf maps an aligned block: elsewhere only base pages are right",
        unaligned_falls_back,
        _MAPS,
    ),
    Check(
        "order-as-asked",
        "NOPAGE to an order means that a leaf of this order is there now, anything else that none is",
        leaf_has_the_order_asked_for,
        (*_MAPS, "pfnmap:X"),
        LEAF_LEVELS,
    ),
    Check(
        "huge-leaves",
        "a driver with huge_fault maps an aligned block with one leaf",
        gives_huge_leaves,
        _HUGE,
        ("pmd", "pud"),
    ),
    Check("other-orders", "an order that no level has falls back", other_orders_fall_back, (*_MAPS, "huge")),
    Check(
        "memory-off",
        "with memory decode off nothing is mapped, and a touch is SIGBUS",
        memory_off,
        (*_MAPS, "action:pci_memory"),
    ),
    Check(
        "fork-and-unmap", "the child maps the same; nothing is left of a mapping that is gone", fork_and_unmap, _MAPS
    ),
)
