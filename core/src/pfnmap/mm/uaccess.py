"""copy_from_user and copy_to_user: the kernel itself touches user memory with the CPU.

Such a fault runs under mmap_lock at once, in one pass (FINDINGS F9, `entry.*.first_by_kernel`). Each page of a buffer
is faulted in as the copy comes to it, and what was faulted in stays (`unpinned.buffer.*`). Sources:
arch/x86/lib/copy_user_64.S, arch/arm64/lib/copy_template.S, mm/gup.c (fault_in_readable). Contents are not modelled.
"""

from __future__ import annotations

from pfnmap.contract.entry import Level
from pfnmap.contract.fault import FAULT_FLAG_WRITE, VM_FAULT_ERROR
from pfnmap.contract.vma import MmStruct
from pfnmap.errors import Refused
from pfnmap.mm.memory import handle_mm_fault
from pfnmap.trace import Hang, Outcome

__all__ = ["NeverCompletes", "copy_from_user", "copy_to_user", "fault_in_readable"]

_ENDLESS = 8  # faults of one access before it is told to be endless; none of the recorded ones took more than three


class NeverCompletes(Outcome):
    """The copy faults for ever at an `address` (bytes), and its
    system call does not return (FINDINGS F22)."""

    def __init__(self, address: int) -> None:
        super().__init__(f"a fault at {address:#x} that never ends")
        self.address = address


def copy_from_user(mm: MmStruct, address: int, length: int) -> int:
    """Read `length` bytes of user memory; return how many bytes could not be."""
    return _copy(mm, address, length, False)


def copy_to_user(mm: MmStruct, address: int, length: int) -> int:
    """Write `length` bytes of user memory; return how many bytes could not be."""
    return _copy(mm, address, length, True)


def fault_in_readable(mm: MmStruct, address: int, length: int) -> int:
    """Touch each page of a range for reading; return how many bytes from the first bad page on are not there."""
    return _touch_pages(mm, address, length, False)


def _copy(mm: MmStruct, address: int, length: int, write: bool) -> int:
    """Copy, and where a page is bad touch it once more if the architecture's copy does: hence two faults for a bad
    address (`disable.kernel_access`, 16 bytes), or one (`min.buffer.off_*`)."""
    left = _touch_pages(mm, address, length, write)
    if left and mm.kernel.arch.copy_tries_again(address, length, length - left, write):
        _touch(mm, address + length - left, write)
    return left


def _touch_pages(mm: MmStruct, address: int, length: int, write: bool) -> int:
    page = mm.kernel.geometry.PAGE_SIZE
    end = address + length
    while address < end:
        if not _touch(mm, address, write):
            return end - address
        address = (address & -page) + page
    return 0


def _touch(mm: MmStruct, address: int, write: bool) -> bool:
    """One load or store of the kernel through the user's mapping; False where it faults for good."""
    arch = mm.kernel.arch
    for _ in range(_ENDLESS):
        leaf = mm.tables.leaf(address)
        if leaf is not None:
            level, (table, index) = leaf
            table[index], allowed = arch.mmu_access(level, table[index], write)
            if allowed:
                _refuse_poison(mm, address, level, table[index])
                return True
        vma = mm.vma_lookup(address)
        if vma is None or mm.kernel.access_error(vma.vm_flags, write):
            return False
        if handle_mm_fault(vma, address, FAULT_FLAG_WRITE if write else 0) & VM_FAULT_ERROR:
            return False
    mm.machine.trace.emit(Hang(address, "F22"))
    raise NeverCompletes(address)


def _refuse_poison(mm: MmStruct, address: int, level: Level, entry: int) -> None:
    machine = mm.machine
    kernel = machine.kernel
    if machine.poisoned:
        within = (address & (kernel.geometry.size(level) - 1)) >> kernel.geometry.PAGE_SHIFT
        if getattr(kernel.ops, f"{level}_pfn")(entry) + within in machine.poisoned:
            raise Refused("uaccess", f"a copy that consumes poison, at {address:#x}")
