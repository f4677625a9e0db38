"""riscv's KVM: arch/riscv/kvm/mmu.c of 6.12.117; blocks of 2M, from 7.0 on, from public sources. Read and not run."""

from __future__ import annotations

from errno import EINVAL, EPERM

from pfnmap.limits import bounded
from pfnmap.vm_flags import VM_PFNMAP, VM_WRITE

from .kvm_main import Vm
from .memslot import MemorySlot
from .mmu import MMIO, OK, Access, GuestMmu, block_fits, host_level, leaf_for
from .stage2 import Leaf

__all__ = ["RiscvMmu"]


class RiscvMmu(GuestMmu):
    """gstage_page_fault and kvm_riscv_gstage_map (kvm_riscv_mmu_map since 6.18)."""

    def prepare(self, vm: Vm, new: MemorySlot, moved: bool) -> int:
        """-EPERM for a writable slot over memory that is not, -EINVAL for a dirty log of a pfnmap.

        Until `riscv-kvm-no-pfnmap-ioremap` pfnmaps are mapped at once, with base pages, to the physical address that
        vm_pgoff gave before `vfio-unmap-mapping-range` (kvm_riscv_gstage_ioremap); where -EPERM comes after that, they
        are unmapped again. The guest address of a second pfnmap in one slot is that of the slot's start again: `hva`
        has moved on, base_gpa has not.
        """
        page, shift = vm.kernel.geometry.PAGE_SIZE, vm.kernel.geometry.PAGE_SHIFT
        hva, end = new.userspace_addr, new.userspace_addr + new.npages * page
        for vma in vm.mm.intersecting(hva, end):
            if not new.readonly and not vma.vm_flags & VM_WRITE:
                if moved:
                    vm.stage2.zap(new.base_gfn, new.end_gfn)
                return -EPERM
            start, stop = max(hva, vma.vm_start), min(end, vma.vm_end)
            if vma.vm_flags & VM_PFNMAP:
                if new.log_dirty:
                    return -EINVAL
                if not vm.kernel.has("riscv-kvm-no-pfnmap-ioremap"):
                    gfn = new.base_gfn + ((start - hva) >> shift)
                    pfn = vma.vm_pgoff + ((start - vma.vm_start) >> shift)
                    for n in range(bounded("kvm.memslot", (stop - start) >> shift)):
                        vm.stage2.install(Leaf("pte", gfn + n, pfn + n, not new.readonly))
            hva = stop
        return 0

    def unmap(self, vm: Vm, start: int, end: int) -> None:
        """gstage_unmap_range: a leaf that is not wholly in the range stays."""
        for leaf in vm.stage2.within(start, end):
            last = leaf.gfn + vm.stage2.pages[leaf.level]
            if start <= leaf.gfn and last <= end:
                vm.stage2.zap(leaf.gfn, last)

    def fault(self, vm: Vm, gfn: int, access: Access) -> str:
        """Handle a guest page fault. EOPNOTSUPP: instructions are fetched where no slot is.

        Since `riscv-kvm-thp` with a block of 2M (PMD) where the process has one or a larger and the slot has room,
        also of a pfnmap; before, with a base page.
        """
        slot = vm.slot_of(gfn)
        write = access == "write"
        if slot is None or (write and slot.readonly):
            return "EOPNOTSUPP" if access == "execute" else MMIO
        logging = slot.log_dirty and not slot.readonly
        found = vm.gfn_to_pfn(slot, gfn, write)
        if found.error:
            return self.errors[found.error]
        writable = found.writable and (write or not logging)
        huge = (
            self.kernel.has("riscv-kvm-thp")
            and not logging
            and block_fits(vm, slot, "pmd", gfn)
            and host_level(vm, slot, gfn) != "pte"
        )
        vm.stage2.install(leaf_for(vm, "pmd" if huge else "pte", gfn, found.pfn, writable))
        if writable:
            vm.mark_page_dirty(slot, gfn)
        return OK
