"""A driver as RDMA's are: it maps the device's BARs as they are mmapped, with remap_pfn_range."""

from pfnmap import Device, Driver, File, VmArea, VmFault, VmOperations
from pfnmap.vm_flags import VM_PFNMAP

BAR_SHIFT = 40


class Uar(Driver):
    """Maps at once; with `lazy`, on the first access and a page at a time."""

    name = "uar"
    lazy = False

    def probe(self, device: Device) -> File:
        return self.open(device)

    def mmap_offset(self, bar: int, offset: int) -> int:
        return (bar << BAR_SHIFT) + offset

    def mmap(self, file: File, vma: VmArea) -> int:
        index, offset = divmod(vma.vm_pgoff << 12, 1 << BAR_SHIFT)
        pfn = (file.private_data.bars[index].phys + offset) >> 12
        if not self.lazy:
            vma.vm_ops = VmOperations(fault=lambda vmf: self.machine.mm.VM_FAULT_SIGBUS)
            return self.machine.mm.remap_pfn_range(vma, vma.vm_start, pfn, vma.size, vma.vm_page_prot)
        vma.vm_flags |= VM_PFNMAP
        vma.vm_private_data = pfn
        vma.vm_ops = VmOperations(fault=self._fault)
        return 0

    def _fault(self, vmf: VmFault) -> int:
        pfn = vmf.vma.vm_private_data + ((vmf.address - vmf.vma.vm_start) >> 12)
        return self.machine.mm.vmf_insert_pfn(vmf.vma, vmf.address, pfn)


class LazyUar(Uar):
    name = "lazy_uar"
    lazy = True


class DeadUar(LazyUar):
    name = "dead_uar"

    def _fault(self, vmf: VmFault) -> int:
        return self.machine.mm.VM_FAULT_SIGBUS
