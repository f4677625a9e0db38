"""The kit's own driver: maps one BAR with the largest leaves that the kernel has, and nothing more."""

from __future__ import annotations

from errno import EINVAL
from typing import ClassVar

from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.module import Driver
from pfnmap.contract.vma import File, VmArea, VmFault, VmOperations
from pfnmap.vm_flags import VM_DONTDUMP, VM_DONTEXPAND, VM_IO, VM_PFNMAP, VM_SHARED

__all__ = ["BarDriver"]


class BarDriver(Driver):
    """Maps BAR 0 of its device; the offset in the file is the offset in the BAR."""

    name: ClassVar[str] = "kit_bar"

    def probe(self, device: Device) -> File:
        """Open the device."""
        return self.open(device.bars[0])

    def mmap_offset(self, bar: int, offset: int) -> int:
        """There is one BAR."""
        return offset

    def mmap(self, file: File, vma: VmArea) -> int:
        """Map shared parts of the BAR, uncached."""
        bar: DeviceBar = file.private_data
        offset = vma.vm_pgoff << self.kernel.geometry.PAGE_SHIFT
        if not vma.vm_flags & VM_SHARED or offset + vma.size > bar.size:
            return -EINVAL
        vma.vm_private_data = bar
        vma.vm_page_prot = self.kernel.ops.pgprot_noncached(vma.vm_page_prot)
        vma.vm_flags |= VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP
        vma.vm_ops = VmOperations(fault=lambda vmf: self._fault(vmf, 0), huge_fault=self._fault)
        return 0

    def _fault(self, vmf: VmFault, order: int) -> int:
        kernel, vma = self.kernel, vmf.vma
        mm, geometry = self.machine.mm, kernel.geometry
        size = geometry.PAGE_SIZE << order
        address = vmf.address & -size
        pfn = (
            (vma.vm_private_data.phys >> geometry.PAGE_SHIFT)
            + vma.vm_pgoff
            + ((address - vma.vm_start) >> geometry.PAGE_SHIFT)
        )
        if address < vma.vm_start or address + size > vma.vm_end or pfn % (1 << order):
            return mm.VM_FAULT_FALLBACK
        if order == 0:
            return mm.vmf_insert_pfn(vma, address, pfn)
        if order == geometry.PMD_ORDER and kernel.pfnmap("pmd"):
            return mm.vmf_insert_pfn_pmd(vmf, pfn, False)
        if order == geometry.PUD_ORDER and kernel.pfnmap("pud"):
            return mm.vmf_insert_pfn_pud(vmf, pfn, False)
        return mm.VM_FAULT_FALLBACK
