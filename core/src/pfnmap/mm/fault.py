"""The CPU's side: a load or a store of user space, and the exception it may raise (arch/*/mm/fault.c).

RULES 1 to 4: an access that the vma refuses raises its signal without a fault in the mm; else a first pass runs under
the per-VMA lock and, where that answers RETRY, a second under mmap_lock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pfnmap.contract.entry import Level
from pfnmap.contract.fault import (
    BUS_ADRERR,
    BUS_MCEERR_AR,
    FAULT_FLAG_USER,
    FAULT_FLAG_VMA_LOCK,
    FAULT_FLAG_WRITE,
    ILL_ILLADR,
    SEGV_ACCERR,
    SEGV_MAPERR,
    VM_FAULT_ERROR,
    VM_FAULT_HWPOISON,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    VM_FAULT_SIGSEGV,
)
from pfnmap.contract.vma import MmStruct
from pfnmap.errors import Refused
from pfnmap.mm.memory import handle_mm_fault
from pfnmap.trace import Hang, Misbehaviour

__all__ = ["AccessResult", "user_access"]

_ENDLESS = 8  # faults of one access before it is told to be endless; none of the recorded ones took more than three


@dataclass(frozen=True)
class AccessResult:
    """Outcome of an access: "ok", the signal with its si_code and si_addr (None: that of the instruction), or "LOOP"
    where the same fault comes again and again until a signal ends it."""

    result: str
    si_code: int | None = None
    si_addr: int | None = None


_OK = AccessResult("ok")


def user_access(mm: MmStruct, address: int, write: bool) -> AccessResult:
    """Load or store one byte at `address` from user space."""
    machine = mm.machine
    arch = machine.kernel.arch
    trace = machine.trace
    first_round = 0
    for _ in range(_ENDLESS):
        leaf = mm.tables.leaf(address)
        if leaf is not None:
            level, (table, index) = leaf
            table[index], allowed = arch.mmu_access(level, table[index], write)
            if allowed:
                if level != "pte":
                    _tell_leak(mm, address, level, table[index])
                if machine.poisoned or arch.cookies_from is not None:
                    return _consume(mm, address, level, table[index])
                return _OK
        refused = _do_user_fault(mm, address, write)
        if refused is not None:
            return replace(refused, si_addr=arch.fault_address(address))
        first_round = first_round or len(trace.events)
    # The handler answers NOPAGE and changes nothing. What is told of it is the first round (RULES3 18), which alone may
    # ask a larger order in vain.
    del trace.events[first_round:]
    trace.emit(Hang(address, "F21"))
    return AccessResult("LOOP")


def _tell_leak(mm: MmStruct, address: int, level: Level, entry: int) -> None:
    """Tell of a huge leaf where it does not belong: no vma is there, or other memory (FINDINGS F3, F23)."""
    vma = mm.vma_lookup(address)
    if vma is None:
        mm.machine.trace.emit(Misbehaviour("F3", "a leaf is used where the process has no mapping"))
    elif vma.is_anonymous and getattr(mm.kernel.ops, f"{level}_special")(entry):
        mm.machine.trace.emit(Misbehaviour("F23", "what the process takes for its memory is a BAR"))


def _consume(mm: MmStruct, address: int, level: Level, entry: int) -> AccessResult:
    """The bytes are read or written: poison is consumed as a machine check, which ends in SIGBUS; where a cookie stands
    for an address, there is nothing (an addressing exception: res1.rw and vfio.rw of s390)."""
    machine = mm.machine
    kernel = machine.kernel
    cookies = kernel.arch.cookies_from
    shift = kernel.geometry.PAGE_SHIFT
    within = (address & (kernel.geometry.size(level) - 1)) >> shift
    pfn = getattr(kernel.ops, f"{level}_pfn")(entry) + within
    if cookies is not None and pfn << shift >= cookies:
        return AccessResult("SIGILL", ILL_ILLADR)
    if pfn in machine.poisoned:
        return AccessResult("SIGBUS", BUS_MCEERR_AR, address)
    return _OK


def _do_user_fault(mm: MmStruct, address: int, write: bool) -> AccessResult | None:
    """Handle the exception; None when the access is to be tried again."""
    kernel = mm.kernel
    vma = mm.vma_lookup(address)
    if vma is None:
        return AccessResult("SIGSEGV", SEGV_MAPERR, address)
    si_code = kernel.access_error(vma.vm_flags, write)
    if si_code:
        return AccessResult("SIGSEGV", si_code, address)
    flags = FAULT_FLAG_USER | (FAULT_FLAG_WRITE if write else 0)
    ret = VM_FAULT_RETRY
    if kernel.per_vma_lock_faults:
        ret = handle_mm_fault(vma, address, flags | FAULT_FLAG_VMA_LOCK)
    if ret & VM_FAULT_RETRY:
        ret = handle_mm_fault(vma, address, flags)
    if not ret & VM_FAULT_ERROR:
        return None
    if ret & VM_FAULT_SIGBUS:
        return AccessResult("SIGBUS", BUS_ADRERR, address)
    if ret & VM_FAULT_HWPOISON:
        return AccessResult("SIGBUS", BUS_MCEERR_AR, address)
    if ret & VM_FAULT_SIGSEGV:
        return AccessResult("SIGSEGV", SEGV_ACCERR, address)
    raise Refused("touch", "out of memory")
