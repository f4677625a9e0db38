"""arm64's KVM: arch/arm64/kvm/mmu.c of 6.12.117 and of releases before and after.

Read and not run: user_mem_abort, transparent_hugepage_adjust and kvm_arch_prepare_memory_region of 6.12.117;
get_vma_page_shift of 6.1.x to 6.12.112 and the cacheable pfnmaps of 6.17 from public sources and a review of them.
"""

from __future__ import annotations

from errno import EINVAL

from pfnmap import Level, VmArea
from pfnmap.limits import bounded
from pfnmap.vm_flags import VM_PFNMAP

from .kvm_main import Vm
from .memslot import MemorySlot
from .mmu import EFAULT, LOOP, MMIO, OK, Access, GuestMmu, block_fits
from .stage2 import LEVELS, Leaf

__all__ = ["Arm64Mmu"]

_PTE_VALID = 1
_ATTR_INDEX_SHIFT = 2  # PTE_ATTRINDX_MASK, three bits
_CACHEABLE = (0, 1)  # MT_NORMAL, MT_NORMAL_TAGGED


class Arm64Mmu(GuestMmu):
    """kvm_handle_guest_abort and user_mem_abort."""

    def prepare(self, vm: Vm, new: MemorySlot, moved: bool) -> int:
        """-EINVAL for a dirty log of a pfnmap, and for a cacheable pfnmap where the CPU cannot have one
        (`arm64-kvm-cacheable-pfnmap`)."""
        size = new.npages * vm.kernel.geometry.PAGE_SIZE
        for vma in vm.mm.intersecting(new.userspace_addr, new.userspace_addr + size):
            if vma.vm_flags & VM_PFNMAP and (
                new.log_dirty or (self._cacheable(vma) and not self._supports_cacheable())
            ):
                return -EINVAL
        return 0

    def _cacheable(self, vma: VmArea) -> bool:
        """kvm_vma_is_cacheable, by the memory type in vm_page_prot; before the change nobody asked."""
        if not self.kernel.has("arm64-kvm-cacheable-pfnmap"):
            return False
        return int(vma.vm_page_prot) >> _ATTR_INDEX_SHIFT & 7 in _CACHEABLE

    def _supports_cacheable(self) -> bool:
        """kvm_supports_cacheable_pfnmap: no cache maintenance is needed, for which there is no kernel address."""
        return bool(self.kernel.cpu["s2fwb"] and self.kernel.cpu["cache_dic"])

    def fault(self, vm: Vm, gfn: int, access: Access) -> str:
        """Handle a stage-2 abort. ENOEXEC: instructions are fetched from a device, or from nowhere."""
        slot = vm.slot_of(gfn)
        write = access == "write"
        if slot is None or (write and slot.readonly):
            return "ENOEXEC" if access == "execute" else MMIO
        hva = vm.hva(slot, gfn)
        with vm.machine.mm.mmap_lock(vm.mm):
            vma = vm.mm.vma_lookup(hva)
        if vma is None:
            return EFAULT
        logging = slot.log_dirty and not slot.readonly
        pfnmap, cacheable = bool(vma.vm_flags & VM_PFNMAP), self._cacheable(vma)
        level: Level
        level, force_pte = ("pte", True) if logging else self._vma_level(vm, slot, vma, gfn)
        gfn &= -vm.stage2.pages[level]
        found = vm.gfn_to_pfn(slot, gfn, write)
        if found.error:
            return EFAULT
        device = pfnmap and found.pfn << vm.kernel.geometry.PAGE_SHIFT not in vm.machine.phys.ram
        if device and cacheable and not self._supports_cacheable():
            return EFAULT
        if access == "execute" and device and not cacheable:
            return "ENOEXEC"
        writable = found.writable and (device or write or not logging)
        if level == "pte" and not force_pte and (not device or cacheable or self.kernel.has("arm64-kvm-pfnmap-block")):
            adjusted = self._transparent_hugepage_adjust(vm, slot, gfn)
            if adjusted is None:
                return LOOP
            level = adjusted
        pages = vm.stage2.pages[level]
        within = gfn % pages
        self._map(vm, gfn - within, found.pfn - within, pages, writable)
        if writable:
            vm.mark_page_dirty(slot, gfn)
        return OK

    def _vma_level(self, vm: Vm, slot: MemorySlot, vma: VmArea, gfn: int) -> tuple[Level, bool]:
        """get_vma_page_shift, bounded by the slot: the level of the block, and whether it is to be a page whatever the
        process has.

        Before `arm64-kvm-pfnmap-block` the block of a pfnmap is the largest modulo which address and vm_pgoff are
        congruent in the vma, be the process's own leaf as small as it may; a fault at the very start of a block does
        not look where it ends.
        """
        if self.kernel.has("arm64-kvm-pfnmap-block") or not vma.vm_flags & VM_PFNMAP:
            return "pte", False
        geometry = vm.kernel.geometry
        hva = vm.hva(slot, gfn)
        pa = (vma.vm_pgoff << geometry.PAGE_SHIFT) + hva - vma.vm_start
        wanted: Level = "pte"
        for level in LEVELS[:-1]:
            size = geometry.size(level)
            if (hva - pa) % size == 0 and hva & -size >= vma.vm_start and -(-hva // size) * size <= vma.vm_end:
                wanted = level
                break
        if wanted == "pte":
            return "pte", False
        for level in LEVELS[LEVELS.index(wanted) : -1]:
            if block_fits(vm, slot, level, gfn):
                return level, False
        return "pte", True

    def _transparent_hugepage_adjust(self, vm: Vm, slot: MemorySlot, gfn: int) -> Level | None:
        """A PMD block where the process has one or a larger, or where there is a block already that a write is to be
        allowed in; None where the process's entry is not valid (PROT_NONE), so that the guest faults for ever."""
        there = vm.stage2.leaf(gfn)
        if there is not None and there.level != "pte":
            return there.level
        if not block_fits(vm, slot, "pmd", gfn):
            return "pte"
        leaf = vm.mm.tables.leaf(vm.hva(slot, gfn))
        if leaf is None:
            return None
        level, (table, index) = leaf
        if not table[index] & _PTE_VALID:
            return None
        return "pte" if level == "pte" else "pmd"

    def _map(self, vm: Vm, gfn: int, pfn: int, pages: int, writable: bool) -> None:
        """kvm_pgtable_stage2_map: the largest blocks that there are of this size and alignment (of 1G with 4K pages
        alone: KVM_PGTABLE_MIN_BLOCK_LEVEL)."""
        levels = LEVELS if vm.kernel.geometry.PAGE_SIZE == 4096 else LEVELS[1:]
        bounded("kvm.map", pages)
        end = gfn + pages
        while gfn < end:
            level = next(
                level
                for level in levels
                if not (gfn | pfn) % vm.stage2.pages[level] and gfn + vm.stage2.pages[level] <= end
            )
            vm.stage2.install(Leaf(level, gfn, pfn, writable))
            gfn, pfn = gfn + vm.stage2.pages[level], pfn + vm.stage2.pages[level]
