"""loongarch's KVM: arch/loongarch/kvm/mmu.c, exit.c of 6.12.117. Read and not run."""

from __future__ import annotations

from collections.abc import Mapping

from pfnmap import LinkedKernel

from .kvm_main import Vm
from .memslot import MemorySlot
from .mmu import MMIO, OK, Access, GuestMmu, block_fits, host_level, leaf_for

__all__ = ["LoongarchMmu"]


class LoongarchMmu(GuestMmu):
    """kvm_handle_mm_fault and kvm_map_page: whatever fails is told to user space as MMIO.

    A leaf says apart whether a page may be written (_PAGE_WRITE; here `mmu_writable`) and whether it is (_PAGE_DIRTY;
    here `writable`): the guest's first write of what was mapped for a read is a fault that does not look at the
    process.
    """

    def __init__(self, kernel: LinkedKernel, parameters: Mapping[str, bool]) -> None:
        """Begin without tables."""
        super().__init__(kernel, parameters)
        self._tables: set[int] = set()
        """The PMD blocks, by first gfn, that have a table of pages: no block again, until the slot goes."""

    def flush(self, vm: Vm, slot: MemorySlot) -> None:
        """kvm_flush_range: the leaves of a slot, and the tables that lie wholly in it."""
        super().flush(vm, slot)
        pages = vm.stage2.pages["pmd"]
        self._tables = {gfn for gfn in self._tables if not slot.base_gfn <= gfn <= slot.end_gfn - pages}

    def fault(self, vm: Vm, gfn: int, access: Access) -> str:
        """Map a base page, or a block of a PMD where the process has one, the slot has room and no smaller leaf was
        ever there (kvm_map_page_fast first). A dirty log is kept of pages alone: a write splits a block."""
        slot = vm.slot_of(gfn)
        if slot is None:
            return MMIO
        write = access == "write"
        there = vm.stage2.leaf(gfn)
        if write and there is not None and there.mmu_writable and (there.level == "pte" or not slot.log_dirty):
            vm.stage2.install(there._replace(writable=True))
            vm.mark_page_dirty(slot, gfn)
            return OK
        found = vm.gfn_to_pfn(slot, gfn, write)
        if found.error:
            return MMIO
        block = gfn & -vm.stage2.pages["pmd"]
        huge = (
            not (slot.log_dirty and write)
            and block_fits(vm, slot, "pmd", gfn)
            and host_level(vm, slot, gfn) == "pmd"
            and block not in self._tables
        )
        if not huge:
            self._tables.add(block)
            if there is not None and there.level != "pte":
                vm.stage2.split(there)
        leaf = leaf_for(vm, "pmd" if huge else "pte", gfn, found.pfn, found.writable and write)
        vm.stage2.install(leaf._replace(mmu_writable=found.writable))
        if leaf.writable:
            vm.mark_page_dirty(slot, gfn)
        return OK
