"""A virtual machine and its memslots: virt/kvm/kvm_main.c of 6.12.117 and 6.1.192.

Recorded, group kvm: `errno` (what is refused), `slot.*` and `log.*`. Addresses are in bytes, gfns and pfns in base
pages.
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, EIO, ENOENT, ENOMEM
from typing import TYPE_CHECKING

from pfnmap import Machine, MmStruct

from .hva_to_pfn import ERR_RO_FAULT, Pfn, hva_to_pfn
from .memslot import MemorySlot
from .stage2 import Stage2

if TYPE_CHECKING:
    from .mmu import GuestMmu

__all__ = ["KVM_MEM_MAX_NR_PAGES", "Vm"]

KVM_MEM_MAX_NR_PAGES = (1 << 31) - 1
KVM_MEM_SLOTS_NUM = (1 << 15) - 1  # SHRT_MAX

_SLOT_BITS = 16  # of a slot's number; the address space is above
_WORD = 1 << 64


class Vm:
    """kvm: the memslots of one virtual machine of one process, and its second-stage tables. `mmu` is what its
    architecture's KVM does."""

    def __init__(self, machine: Machine, mm: MmStruct, mmu: GuestMmu) -> None:
        self.machine = machine
        self.kernel = machine.kernel
        self.mm = mm
        self.mmu = mmu
        self.slots: dict[int, MemorySlot] = {}
        self.dirty_bitmaps: dict[int, set[int]] = {}
        """The pages of each slot that keeps a dirty log that the guest has written, counted from the slot's first."""
        self.generation = 0
        """Of the memslots: how often any of them has changed."""
        self.stage2 = Stage2(machine.kernel.geometry)
        self._user_slots = KVM_MEM_SLOTS_NUM - mmu.internal_slots
        machine.mm.mmu_notifier_register(mm, self._invalidate_range)

    # memslots

    def set_memory_region(
        self,
        mm: MmStruct,
        slot: int,
        gpa: int,
        size: int,
        userspace_addr: int,
        readonly: bool,
        log_dirty: bool,
        nomem: bool = False,
    ) -> int:
        """KVM_SET_USER_MEMORY_REGION; return 0 or -errno.

        -EIO: asked by another process than the VM's. -EINVAL: not page-aligned, beyond the address space of the
        process or of the guest, too many pages, a slot number or an address space there is not; deleting what is not
        there; changing what cannot be changed. -EEXIST: another slot has some of these gfns. Then what the
        architecture says, and -ENOMEM where the machine has no memory for what KVM keeps of the slot (`nomem`).
        """
        geometry = self.kernel.geometry
        page = geometry.PAGE_SIZE
        if mm is not self.mm:
            return -EIO
        if slot % (1 << _SLOT_BITS) >= self._user_slots or (readonly and not self.mmu.has_readonly):
            return -EINVAL
        if size % page or gpa % page or userspace_addr % page or userspace_addr + size > geometry.task_size:
            return -EINVAL
        if slot >> _SLOT_BITS >= self.mmu.address_spaces or gpa + size > _WORD or size // page > KVM_MEM_MAX_NR_PAGES:
            return -EINVAL
        old = self.slots.get(slot)
        if not size:
            if old is None:
                return -EINVAL
            del self.slots[slot]
            self.generation += 1
            self.dirty_bitmaps.pop(slot, None)
            self.mmu.flush(self, old)
            return 0
        new = MemorySlot(slot, gpa // page, size // page, userspace_addr, readonly, log_dirty)
        if old is not None:
            fixed = (old.userspace_addr, old.npages, old.readonly)
            if fixed != (new.userspace_addr, new.npages, new.readonly):
                return -EINVAL
            if old == new:
                return 0
        return self._set_memslot(old, new, nomem)

    def _set_memslot(self, old: MemorySlot | None, new: MemorySlot, nomem: bool) -> int:
        """kvm_set_memslot: a new slot, one that moves, or one whose dirty log is switched."""
        moved = old is None or old.base_gfn != new.base_gfn
        others = (s for s in self.slots.values() if s.id != new.id and s.id >> _SLOT_BITS == new.id >> _SLOT_BITS)
        if moved and any(s.base_gfn < new.end_gfn and new.base_gfn < s.end_gfn for s in others):
            return -EEXIST
        if old is not None and moved:  # as invalid, before the architecture is asked; a refusal leaves it flushed
            self.mmu.flush(self, old)
        error = self.mmu.prepare(self, new, moved) or (-ENOMEM if nomem and moved else 0)
        if error:
            return error
        self.slots[new.id] = new
        self.generation += 1
        if new.log_dirty:
            self.dirty_bitmaps.setdefault(new.id, set())
        else:
            self.dirty_bitmaps.pop(new.id, None)
        if old is not None and not moved:
            self.mmu.log_switched(self, new)
        return 0

    def slot_of(self, gfn: int) -> MemorySlot | None:
        """gfn_to_memslot: the slot of a gfn in the first address space, the one of all but x86's SMM."""
        slots = (slot for slot in self.slots.values() if not slot.id >> _SLOT_BITS)
        return next((slot for slot in slots if slot.base_gfn <= gfn < slot.end_gfn), None)

    def hva(self, slot: MemorySlot, gfn: int) -> int:
        """__gfn_to_hva_memslot: the address (bytes) of a slot's gfn in the process."""
        return slot.userspace_addr + (gfn - slot.base_gfn) * self.kernel.geometry.PAGE_SIZE

    def _invalidate_range(self, start: int, end: int) -> None:
        """kvm_mmu_notifier_invalidate_range_start: drop what maps addresses of [start, end)."""
        page = self.kernel.geometry.PAGE_SIZE
        for slot in self.slots.values():
            low = max(start, slot.userspace_addr)
            high = min(end, slot.userspace_addr + slot.npages * page)
            if low < high and not slot.id >> _SLOT_BITS:
                first, last = low - slot.userspace_addr, high - slot.userspace_addr
                self.mmu.unmap(self, slot.base_gfn + first // page, slot.base_gfn + -(-last // page))

    # the dirty log

    def mark_page_dirty(self, slot: MemorySlot, gfn: int) -> None:
        """mark_page_dirty_in_slot: the guest may have written a page, if somebody wants to know."""
        if slot.log_dirty:
            self.dirty_bitmaps[slot.id].add(gfn - slot.base_gfn)

    def get_dirty_log(self, slot: int) -> tuple[int, list[int]]:
        """KVM_GET_DIRTY_LOG: return 0 and the dirty pages, counted from the slot's first, or -errno and none.

        The log is empty then, and the guest's next write of each page is a fault (kvm_get_dirty_log_protect).
        -EINVAL: a slot number there is not. -ENOENT: no slot, or it keeps no log.
        """
        if slot >> _SLOT_BITS >= self.mmu.address_spaces or slot % (1 << _SLOT_BITS) >= self._user_slots:
            return -EINVAL, []
        if slot not in self.dirty_bitmaps:
            return -ENOENT, []
        dirty = sorted(self.dirty_bitmaps[slot])
        self.dirty_bitmaps[slot] = set()
        self.mmu.log_taken(self, self.slots[slot], dirty)
        return 0, dirty

    # the page behind an address

    def gfn_to_pfn(self, slot: MemorySlot, gfn: int, write: bool) -> Pfn:
        """__gfn_to_pfn_memslot: a read-only slot is never written, nor told to be writable."""
        if slot.readonly and write:
            return Pfn(error=ERR_RO_FAULT)
        found = hva_to_pfn(self.machine, self.mm, self.hva(slot, gfn), write)
        return found._replace(writable=found.writable and not slot.readonly)
