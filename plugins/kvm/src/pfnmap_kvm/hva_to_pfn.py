"""Finding the page behind an address of the process: hva_to_pfn of virt/kvm/kvm_main.c.

6.12.117 and 6.1.192; 6.13's kvm_follow_pfn() changed names, not what comes out for a pfnmap. Recorded, group kvm:
`level.*` and `host_first` (look-ups and faults), `ro.*` (KVM_PFN_ERR_RO_FAULT), `map_fixed_anon` (memory of the
process). 6.12's -EFAULT for pages with a struct page that nobody may refer to is for no BAR, and is not here.
"""

from __future__ import annotations

from errno import EAGAIN, EINVAL
from typing import NamedTuple

from pfnmap import Call, Machine, Misbehaviour, MmStruct, VmArea
from pfnmap.vm_flags import VM_ACCESS_FLAGS, VM_IO, VM_PFNMAP

__all__ = ["ERR_FAULT", "ERR_RO_FAULT", "Pfn", "hva_to_pfn"]

ERR_FAULT = "KVM_PFN_ERR_FAULT"
ERR_RO_FAULT = "KVM_PFN_ERR_RO_FAULT"


class Pfn(NamedTuple):
    """What hva_to_pfn answers: a pfn and `writable`, whether the guest may be let write; or an error (the name of one
    of the KVM_PFN_ERR_ values)."""

    pfn: int = -1
    writable: bool = False
    error: str = ""


def hva_to_pfn(machine: Machine, mm: MmStruct, address: int, write: bool) -> Pfn:
    """Find the page at an address (bytes): pin it if that can be, else look at the entries of a pfnmap."""
    functions = machine.mm
    fast = _page(machine, mm, address, functions.FOLL_WRITE, fast_only=True)
    if fast is not None:
        return Pfn(fast, True)
    slow = _page(machine, mm, address, functions.FOLL_WRITE if write else 0)
    if slow is not None:
        return Pfn(slow, write or _page(machine, mm, address, functions.FOLL_WRITE, fast_only=True) is not None)
    with functions.mmap_lock(mm):
        while True:
            vma = mm.vma_lookup(address)
            if vma is None or not vma.vm_flags & (VM_IO | VM_PFNMAP):
                return Pfn(error=ERR_FAULT)
            error, found = _hva_to_pfn_remapped(machine, vma, address, write)
            if error != -EAGAIN:
                return Pfn(error=ERR_FAULT) if error else found


def _page(machine: Machine, mm: MmStruct, address: int, gup_flags: int, *, fast_only: bool = False) -> int | None:
    """hva_to_pfn_fast, hva_to_pfn_slow: the PFN of a page, or None. KVM keeps no reference: notifiers tell it."""
    functions = machine.mm
    pages: list[int] = []
    get = functions.get_user_pages_fast_only if fast_only else functions.get_user_pages_unlocked
    if get(mm, address, 1, gup_flags, pages) != 1:
        return None
    functions.put_pages(machine, pages)
    return pages[0]


def _hva_to_pfn_remapped(machine: Machine, vma: VmArea, address: int, write: bool) -> tuple[int, Pfn]:
    """Look up, fault in if that fails, look up again; return (0 or -errno, what was found).

    -EAGAIN: mmap_lock was let go on the way, the vma may be gone. ERR_RO_FAULT: the entry is there, is not writable,
    and is to be written; no fault is tried then.
    """
    mm, functions = vma.vm_mm, machine.mm
    machine.trace.emit(Call("hva_to_pfn_remapped", address))
    found = _follow(machine, vma, address)
    if found is None:
        error, unlocked = functions.fixup_user_fault(mm, address, functions.FAULT_FLAG_WRITE if write else 0)
        if unlocked:
            return -EAGAIN, Pfn()
        if error:
            return error, Pfn()
        found = _follow(machine, vma, address)
        if found is None:
            return -EINVAL, Pfn()
    if write and not found.writable:
        return 0, Pfn(error=ERR_RO_FAULT)
    if not vma.vm_flags & VM_ACCESS_FLAGS:
        machine.trace.emit(Misbehaviour("F27", "a guest is given what the process itself may not read"))
    return 0, found


def _follow(machine: Machine, vma: VmArea, address: int) -> Pfn | None:
    kernel, functions = machine.kernel, machine.mm
    if not kernel.has("huge-pfnmap"):
        pte = functions.follow_pte(vma, address)
        return None if pte is None else Pfn(kernel.ops.pte_pfn(pte), bool(kernel.ops.pte_write(pte)))
    with functions.follow_pfnmap(vma, address) as args:
        return None if args is None else Pfn(args.pfn, args.writable)
