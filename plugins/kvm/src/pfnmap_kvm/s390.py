"""s390's KVM with tables of its own, the gmap of `s390-kvm-new-gmap`: arch/s390/kvm/faultin.c, gmap.c, kvm-s390.c, from
public sources of 7.0 and later. Read and not run. Before, guests shared the process's page tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from errno import EINVAL
from typing import ClassVar

from pfnmap import Refused

from .hva_to_pfn import ERR_FAULT, ERR_RO_FAULT
from .kvm_main import Vm
from .memslot import MemorySlot
from .mmu import EFAULT, OK, Access, GuestMmu, leaf_for

__all__ = ["S390Mmu"]

_SEGMENT = 1 << 20


class S390Mmu(GuestMmu):
    """kvm_s390_faultin_gfn and gmap_link."""

    internal_slots: ClassVar[int] = 1  # KVM_S390_UCONTROL_MEMSLOT
    errors: ClassVar[Mapping[str, str]] = {ERR_FAULT: EFAULT, ERR_RO_FAULT: "EOPNOTSUPP"}

    def prepare(self, vm: Vm, new: MemorySlot, moved: bool) -> int:
        """-EINVAL for a slot whose address or size is no multiple of 1M. The limit of guest addresses, which user space
        chooses, is not modelled."""
        size = new.npages * vm.kernel.geometry.PAGE_SIZE
        return -EINVAL if moved and (new.userspace_addr % _SEGMENT or size % _SEGMENT) else 0

    def log_taken(self, vm: Vm, slot: MemorySlot, pages: list[int]) -> None:
        """gmap_sync_dirty_log reads the log from the entries' dirty bits, which are not modelled."""
        raise Refused("kvm.dirty_log", "s390 reads its log from the bits of the second-stage entries")

    def fault(self, vm: Vm, gfn: int, access: Access) -> str:
        """Map a base page: 1M segments are for memory with pages (gmap_link), and need KVM_CAP_S390_HPAGE_1M.

        PGM_ADDRESSING: the guest gets an addressing exception where it has no slot. EOPNOTSUPP: KVM does not handle
        writes to what is read-only.
        """
        slot = vm.slot_of(gfn)
        if slot is None:
            return "PGM_ADDRESSING"
        found = vm.gfn_to_pfn(slot, gfn, access == "write")
        if found.error:
            return self.errors[found.error]
        vm.stage2.install(leaf_for(vm, "pte", gfn, found.pfn, found.writable))
        return OK
