"""x86's KVM with the TDP MMU, on NPT: arch/x86/kvm/mmu/mmu.c, tdp_mmu.c, spte.c, x86.c of 6.12.117.

Recorded, group kvm: `level.*`, `edge.*`, `scan.*` (levels), `log.*` (the dirty log), `nx.*` (instruction fetches),
`clear_refs*` and `ro.*` (emulated writes), `noslot`, `errno` (the limit of guest addresses). EPT with PML, whose dirty
log write-protects no page, and shadow paging are not modelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from errno import EINVAL
from typing import ClassVar

from pfnmap import Level, LinkedKernel, Misbehaviour, Outcome
from pfnmap.limits import bounded

from .hva_to_pfn import ERR_RO_FAULT
from .kvm_main import Vm
from .memslot import MemorySlot
from .mmu import EMULATED, MMIO, OK, Access, GuestMmu, block_fits, host_level, leaf_for
from .stage2 import LEVELS, Leaf

__all__ = ["X86Mmu"]


class X86Mmu(GuestMmu):
    """kvm_tdp_mmu_map and its surroundings."""

    internal_slots: ClassVar[int] = 3
    address_spaces: ClassVar[int] = 2  # the second is SMM's (KVM_SMM)

    def __init__(self, kernel: LinkedKernel, parameters: Mapping[str, bool]) -> None:
        """Begin without tables."""
        super().__init__(kernel, parameters)
        self._nx_tables: set[tuple[Level, int]] = set()
        """The blocks, by level and first gfn, that have a table because of an instruction fetch
        (nx_huge_page_disallowed)."""

    def prepare(self, vm: Vm, new: MemorySlot, moved: bool) -> int:
        """-EINVAL beyond the CPU's physical addresses (kvm_mmu_max_gfn; `errno`, with 46 bits)."""
        limit = 1 << (int(self.kernel.cpu["phys_bits"]) - self.kernel.geometry.PAGE_SHIFT)
        return -EINVAL if moved and new.end_gfn > limit else 0

    def flush(self, vm: Vm, slot: MemorySlot) -> None:
        """Everything of the guest goes with any slot (`slot.delete_other`, `slot.move`; KVM_X86_QUIRK_SLOT_ZAP_ALL,
        which is on)."""
        self.zap_all(vm)

    def zap_all(self, vm: Vm) -> None:
        """kvm_mmu_zap_all_fast."""
        vm.stage2.zap(0, 1 << 64)
        vm.stage2.mmio.clear()
        self._nx_tables.clear()

    # the dirty log

    def log_switched(self, vm: Vm, slot: MemorySlot) -> None:
        """kvm_mmu_slot_apply_flags: on, all is split into pages at once if eager_page_split says so, and read-only
        (`log.on_off_1G`, `log.on_off_1G_no_eager`); off, small leaves make room for large ones."""
        if slot.readonly:
            return
        if not slot.log_dirty:
            self._collapse(vm, slot)
            return
        if self.parameters["eager_page_split"]:
            for leaf in vm.stage2.within(slot.base_gfn, slot.end_gfn):
                self._split_to_pages(vm, leaf)
        vm.stage2.write_protect(slot.base_gfn, slot.end_gfn)

    def _split_to_pages(self, vm: Vm, leaf: Leaf) -> None:
        if leaf.level == "pte":
            return
        bounded("kvm.memslot", vm.stage2.pages[leaf.level])
        vm.stage2.split(leaf, executable=True)
        for child in vm.stage2.within(leaf.gfn, leaf.gfn + vm.stage2.pages[leaf.level]):
            self._split_to_pages(vm, child)

    def _collapse(self, vm: Vm, slot: MemorySlot) -> None:
        """zap_collapsible_spte_range: drop the small leaves of each block that could be one leaf (`log.on_off_4M`).

        Since `x86-kvm-recover-huge-pages` (recover_huge_pages_range): put that one leaf in, which is as the first of
        the small ones: read-only, as that was for the log, until a fault that does not look at the process.
        """
        recovers = self.kernel.has("x86-kvm-recover-huge-pages")
        for level in LEVELS[:-1]:
            pages = vm.stage2.pages[level]
            small = [
                leaf
                for leaf in vm.stage2.within(slot.base_gfn, slot.end_gfn)
                if LEVELS.index(leaf.level) > LEVELS.index(level)
            ]
            for gfn in dict.fromkeys(leaf.gfn & -pages for leaf in small):
                if LEVELS.index(self._max_level(vm, slot, gfn)) > LEVELS.index(level):
                    continue
                first = vm.stage2.within(gfn, gfn + pages)[0]
                vm.stage2.zap(gfn, gfn + pages)
                self._forget_tables(level, gfn, pages)
                if recovers:
                    huge = first._replace(level=level, gfn=gfn, pfn=first.pfn - (first.gfn - gfn), untraced=False)
                    vm.stage2.install(huge._replace(executable=not self.parameters["nx_huge_pages"]))

    def _forget_tables(self, level: Level, gfn: int, pages: int) -> None:
        self._nx_tables = {(at, first) for at, first in self._nx_tables if not gfn <= first < gfn + pages}

    def log_taken(self, vm: Vm, slot: MemorySlot, pages: list[int]) -> None:
        """clear_dirty_pt_masked: leaves of pages alone (`log.from_start`)."""
        for page in pages:
            leaf = vm.stage2.leaf(slot.base_gfn + page)
            if leaf is not None and leaf.level == "pte":
                vm.stage2.write_protect(leaf.gfn, leaf.gfn + 1)

    # faults

    def knows_mmio(self, vm: Vm, gfn: int) -> bool:
        """handle_mmio_page_fault: emulated at once, as long as no slot has changed since (check_mmio_spte)."""
        return vm.stage2.mmio.get(gfn) == vm.generation

    def fault(self, vm: Vm, gfn: int, access: Access) -> str:
        """kvm_tdp_page_fault. Without a slot the gfn is remembered as MMIO (`noslot`)."""
        slot = vm.slot_of(gfn)
        if slot is None:
            vm.stage2.mmio[gfn] = vm.generation
            return MMIO
        write = access == "write"
        if write and self._fast_page_fault(vm, slot, gfn):
            return OK
        found = vm.gfn_to_pfn(slot, gfn, write)
        if found.error == ERR_RO_FAULT:
            return self._emulate_write(vm, slot, gfn)
        if found.error:
            return self.errors[found.error]
        self._map(vm, slot, gfn, found.pfn, found.writable, execute=access == "execute")
        return OK

    def _fast_page_fault(self, vm: Vm, slot: MemorySlot, gfn: int) -> bool:
        """Let the guest write where KVM alone kept it from that: not with a large leaf while there is a dirty log,
        which counts pages (`log.from_start`, `log.on_off_1G_no_eager`)."""
        leaf = vm.stage2.leaf(gfn)
        if leaf is None or not leaf.mmu_writable or (leaf.level != "pte" and slot.log_dirty):
            return False
        vm.stage2.install(leaf._replace(writable=True, untraced=True))
        vm.mark_page_dirty(slot, gfn)
        return True

    def _emulate_write(self, vm: Vm, slot: MemorySlot, gfn: int) -> str:
        """RET_PF_EMULATE: KVM does the guest's store itself, through the process's mapping (emulator_write_phys).

        Where that mapping can be made writable the store succeeds and the guest's leaf stays as it is
        (`clear_refs_4k`); a store that faults for ever is one that KVM_RUN does not come back from (`clear_refs`: 2M
        and 1G). Where the vma or the slot is read-only, user space serves the access (`ro.vma`, `ro.slot`).
        """
        try:
            refused = slot.readonly or vm.machine.mm.copy_to_user(vm.mm, vm.hva(slot, gfn), 1)
        except Outcome:
            vm.machine.trace.emit(Misbehaviour("F26", "KVM_RUN never returns"))
            raise
        if refused:
            return MMIO
        vm.mark_page_dirty(slot, gfn)
        return EMULATED

    def _max_level(self, vm: Vm, slot: MemorySlot, gfn: int) -> Level:
        """kvm_mmu_max_mapping_level: the largest level that the slot allows here, and no larger than the process's."""
        allowed = next(level for level in LEVELS if level == "pte" or block_fits(vm, slot, level, gfn))
        return max(allowed, host_level(vm, slot, gfn), key=LEVELS.index)

    def _map(self, vm: Vm, slot: MemorySlot, gfn: int, pfn: int, writable: bool, *, execute: bool) -> None:
        """kvm_tdp_mmu_map: at the level of kvm_mmu_hugepage_adjust, below what is larger, which is split for it.

        With nx_huge_pages larger leaves than pages are not executable, and a fetch gets a page (`nx.force`); what has
        tables because of a fetch keeps them (disallowed_hugepage_adjust). Any writable leaf makes its page dirty, be
        it for a read (`log.from_start`).
        """
        nx = self.parameters["nx_huge_pages"]
        level = "pte" if slot.log_dirty else self._max_level(vm, slot, gfn)
        if execute and nx:
            self._nx_tables.update((at, gfn & -vm.stage2.pages[at]) for at in LEVELS[:-1])
            level = "pte"
        while nx and (level, gfn & -vm.stage2.pages[level]) in self._nx_tables:
            level = LEVELS[LEVELS.index(level) + 1]
        while (larger := vm.stage2.leaf(gfn)) is not None and LEVELS.index(larger.level) < LEVELS.index(level):
            vm.stage2.split(larger, executable=True)
        leaf = leaf_for(vm, level, gfn, pfn, writable, executable=level == "pte" or not nx)
        vm.stage2.install(leaf._replace(mmu_writable=writable))
        if writable:
            vm.mark_page_dirty(slot, gfn)
