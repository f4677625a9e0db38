"""Memslots, and finding the page behind a guest address: virt/kvm/kvm_main.c of 6.12.117 and 6.1.192.

Read and not run. Addresses are in bytes, gfns and pfns in base pages. 6.13's kvm_follow_pfn() changed the names of what
is here, not what comes out for a pfnmap (from memory).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from errno import EAGAIN, EEXIST, EINVAL, EIO
from typing import NamedTuple

from pfnmap import Call, Machine, MmStruct, Refused, VmArea
from pfnmap.vm_flags import VM_IO, VM_PFNMAP

from .stage2 import Stage2

__all__ = ["ERR_FAULT", "ERR_RO_FAULT", "KVM_MEM_MAX_NR_PAGES", "MemorySlot", "Pfn", "Vm"]

KVM_MEM_MAX_NR_PAGES = (1 << 31) - 1
KVM_MEM_SLOTS_NUM = (1 << 15) - 1  # SHRT_MAX

ERR_FAULT = "KVM_PFN_ERR_FAULT"
ERR_RO_FAULT = "KVM_PFN_ERR_RO_FAULT"

_WORD = 1 << 64


@dataclass(frozen=True)
class MemorySlot:
    """kvm_memory_slot: `npages` base pages from `base_gfn` on are those of the process from `userspace_addr` on."""

    id: int
    base_gfn: int
    npages: int
    userspace_addr: int
    readonly: bool = False
    log_dirty: bool = False

    @property
    def end_gfn(self) -> int:
        """The first gfn past the slot."""
        return self.base_gfn + self.npages


class Pfn(NamedTuple):
    """What hva_to_pfn answers: a pfn and `writable`, whether the guest may be let write; or an error (the name of one
    of the KVM_PFN_ERR_ values)."""

    pfn: int = -1
    writable: bool = False
    error: str = ""


class Vm:
    """kvm: the memslots of one virtual machine of one process, and its second-stage tables.

    `prepare(slot)` is kvm_arch_prepare_memory_region of a new or moved slot, and returns 0 or -errno; `flush(slot)`
    drops what a slot that goes away has mapped; `internal_slots`: how many slot numbers the architecture keeps.
    """

    def __init__(
        self,
        machine: Machine,
        mm: MmStruct,
        prepare: Callable[[Vm, MemorySlot], int],
        flush: Callable[[Vm, MemorySlot], None],
        internal_slots: int,
    ) -> None:
        self.machine = machine
        self.kernel = kernel = machine.kernel
        self.mm = mm
        self.slots: dict[int, MemorySlot] = {}
        self.stage2 = Stage2(kernel.geometry)
        self._prepare = prepare
        self._flush = flush
        self._user_slots = KVM_MEM_SLOTS_NUM - internal_slots
        machine.mm.mmu_notifier_register(mm, self._invalidate_range)

    # memslots

    def set_memory_region(
        self, mm: MmStruct, id: int, gpa: int, size: int, userspace_addr: int, readonly: bool, log_dirty: bool
    ) -> int:
        """KVM_SET_USER_MEMORY_REGION in the first address space of the guest; return 0 or -errno.

        -EIO: asked by another process than the VM's. -EINVAL: not page-aligned, beyond the address space of the
        process or of the guest, too many pages, a slot number there is not; deleting what is not there; changing what
        cannot be changed. -EEXIST: another slot has some of these gfns. Then what the architecture says.
        """
        geometry = self.kernel.geometry
        page = geometry.PAGE_SIZE
        if mm is not self.mm:
            return -EIO
        if id >= self._user_slots:
            return -EINVAL
        if size % page or gpa % page or userspace_addr % page or userspace_addr + size > geometry.task_size:
            return -EINVAL
        if gpa + size > _WORD or size // page > KVM_MEM_MAX_NR_PAGES:
            return -EINVAL
        old = self.slots.get(id)
        if not size:
            if old is None:
                return -EINVAL
            del self.slots[id]
            self._flush(self, old)
            return 0
        new = MemorySlot(id, gpa // page, size // page, userspace_addr, readonly, log_dirty)
        if old is not None:
            fixed = (old.userspace_addr, old.npages, old.readonly)
            if fixed != (new.userspace_addr, new.npages, new.readonly):
                return -EINVAL
            if old == new:
                return 0
        return self._set_memslot(old, new)

    def _set_memslot(self, old: MemorySlot | None, new: MemorySlot) -> int:
        """kvm_set_memslot: a new slot, one that moves, or one whose dirty log is switched."""
        moved = old is None or old.base_gfn != new.base_gfn
        others = (slot for slot in self.slots.values() if slot.id != new.id)
        if moved and any(s.base_gfn < new.end_gfn and new.base_gfn < s.end_gfn for s in others):
            return -EEXIST
        if old is not None and not moved and self.stage2.within(old.base_gfn, old.end_gfn):
            raise Refused("kvm.memslot", "the dirty log of a slot that the guest has used is switched")
        if old is not None and moved:  # as invalid, before the architecture is asked; a refusal leaves it flushed
            self._flush(self, old)
        error = self._prepare(self, new)
        if not error:
            self.slots[new.id] = new
        return error

    def slot_of(self, gfn: int) -> MemorySlot | None:
        """gfn_to_memslot."""
        return next((slot for slot in self.slots.values() if slot.base_gfn <= gfn < slot.end_gfn), None)

    def hva(self, slot: MemorySlot, gfn: int) -> int:
        """__gfn_to_hva_memslot: the address (bytes) of a slot's gfn in the process."""
        return slot.userspace_addr + (gfn - slot.base_gfn) * self.kernel.geometry.PAGE_SIZE

    def _invalidate_range(self, start: int, end: int) -> None:
        """kvm_mmu_notifier_invalidate_range_start: drop what maps addresses of [start, end)."""
        page = self.kernel.geometry.PAGE_SIZE
        for slot in self.slots.values():
            low = max(start, slot.userspace_addr)
            high = min(end, slot.userspace_addr + slot.npages * page)
            if low < high:
                first, last = low - slot.userspace_addr, high - slot.userspace_addr
                self.stage2.zap(slot.base_gfn + first // page, slot.base_gfn + -(-last // page))

    # the page behind an address

    def gfn_to_pfn(self, slot: MemorySlot, gfn: int, write: bool) -> Pfn:
        """__gfn_to_pfn_memslot: a read-only slot is never written, nor told to be writable."""
        if slot.readonly and write:
            return Pfn(error=ERR_RO_FAULT)
        found = self._hva_to_pfn(self.hva(slot, gfn), write)
        return found._replace(writable=found.writable and not slot.readonly)

    def _hva_to_pfn(self, address: int, write: bool) -> Pfn:
        """hva_to_pfn of a pfnmap: pages cannot be pinned there (hva_to_pfn_fast, _slow), so its entries are looked at.

        Raises Refused for ordinary memory.
        """
        with self.machine.mm.mmap_lock(self.mm):
            while True:
                vma = self.mm.vma_lookup(address)
                if vma is None:
                    return Pfn(error=ERR_FAULT)
                if not vma.vm_flags & (VM_IO | VM_PFNMAP):
                    raise Refused("hva_to_pfn", f"ordinary memory at {address:#x}; only pfnmaps are modelled")
                error, found = self._hva_to_pfn_remapped(vma, address, write)
                if error != -EAGAIN:
                    return Pfn(error=ERR_FAULT) if error else found

    def _hva_to_pfn_remapped(self, vma: VmArea, address: int, write: bool) -> tuple[int, Pfn]:
        """Look up, fault in if that fails, look up again; return (0 or -errno, what was found).

        -EAGAIN: mmap_lock was let go on the way, the vma may be gone. ERR_RO_FAULT: the entry is there, is not
        writable, and is to be written; no fault is tried then.
        """
        mm = self.machine.mm
        self.machine.trace.emit(Call("hva_to_pfn_remapped", address))
        found = self._follow(vma, address)
        if found is None:
            error, unlocked = mm.fixup_user_fault(self.mm, address, mm.FAULT_FLAG_WRITE if write else 0)
            if unlocked:
                return -EAGAIN, Pfn()
            if error:
                return error, Pfn()
            found = self._follow(vma, address)
            if found is None:
                return -EINVAL, Pfn()
        if write and not found.writable:
            return 0, Pfn(error=ERR_RO_FAULT)
        return 0, found

    def _follow(self, vma: VmArea, address: int) -> Pfn | None:
        kernel = self.kernel
        if not kernel.has("huge-pfnmap"):
            pte = self.machine.mm.follow_pte(vma, address)
            return None if pte is None else Pfn(kernel.ops.pte_pfn(pte), bool(kernel.ops.pte_write(pte)))
        with self.machine.mm.follow_pfnmap(vma, address) as args:
            return None if args is None else Pfn(args.pfn, args.writable)
