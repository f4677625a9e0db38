"""powerpc's KVM with the radix MMU: arch/powerpc/kvm/book3s_64_mmu_radix.c, book3s_hv.c of 6.12.117.

Read and not run.
"""

from __future__ import annotations

from typing import ClassVar

from pfnmap import Refused

from .kvm_main import Vm
from .memslot import MemorySlot
from .mmu import MMIO, OK, Access, GuestMmu, congruent, host_level, leaf_for

__all__ = ["PowerpcMmu"]


class PowerpcMmu(GuestMmu):
    """kvmppc_book3s_radix_page_fault and kvmppc_book3s_instantiate_page."""

    has_readonly: ClassVar[bool] = False

    def log_switched(self, vm: Vm, slot: MemorySlot) -> None:
        """kvmppc_core_commit_memory_region_hv: on or off, the slot's leaves go."""
        vm.stage2.zap(slot.base_gfn, slot.end_gfn)

    def log_taken(self, vm: Vm, slot: MemorySlot, pages: list[int]) -> None:
        """kvmppc_hv_get_dirty_log_radix reads the log from the entries' dirty bits, which are not modelled."""
        raise Refused("kvm.dirty_log", "powerpc64 reads its log from the bits of the second-stage entries")

    def fault(self, vm: Vm, gfn: int, access: Access) -> str:
        """Map at the process's own level where gfn and address are congruent modulo that, else a base page, nothing
        between. The ends of the slot are not looked at."""
        slot = vm.slot_of(gfn)
        if slot is None:
            return MMIO
        found = vm.gfn_to_pfn(slot, gfn, access == "write")
        if found.error:
            return self.errors[found.error]
        level = host_level(vm, slot, gfn)
        if slot.log_dirty or not congruent(vm, slot, level):
            level = "pte"
        vm.stage2.install(leaf_for(vm, level, gfn, found.pfn, found.writable))
        return OK
