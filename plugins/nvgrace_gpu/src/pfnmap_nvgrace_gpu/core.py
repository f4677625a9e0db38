"""nvgrace-gpu: memory of a GPU that the CPU reaches coherently, shown to user space as BARs 2 and 4
(drivers/vfio/pci/nvgrace-gpu/main.c).

Read, not run: 6.12.117 for remap_pfn_range at mmap; for `nvgrace-huge-fault` and `memory-failure-pfn` the patches that
brought them, and what follows from them for private mappings is inference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from errno import EINVAL, errorcode
from typing import Any, ClassVar

from pfnmap import (
    Action,
    Device,
    DeviceBar,
    Driver,
    File,
    FileOperations,
    Machine,
    Refused,
    ScenarioRun,
    Unknown,
    VmArea,
    VmFault,
    VmOperations,
)
from pfnmap.contract.plan import Image, RegionRules, Request
from pfnmap.records import dataclass
from pfnmap.vm_flags import VM_ALLOW_ANY_UNCACHED, VM_DONTDUMP, VM_DONTEXPAND, VM_IO, VM_PFNMAP

from .plan import region_rules

VFIO_PCI_OFFSET_SHIFT = 40
VFIO_PCI_ROM_REGION_INDEX = 6
RESMEM_REGION_INDEX = 2
USEMEM_REGION_INDEX = 4
PCI_COMMAND_MEMORY = 0x2

_NONE = DeviceBar(USEMEM_REGION_INDEX, 0, 0)


def _memlength(region: DeviceBar) -> int:
    """mem_region.memlength: bytes of memory, of which the BAR that is shown is the next power of two."""
    return region.size if region.memory is None else region.memory


@dataclass(eq=False)
class NvgraceGpuPciCoreDevice:
    """nvgrace_gpu_pci_core_device: the device, its command register, and whether its memory answers (after a reset it
    takes a while)."""

    pdev: Device
    command: int
    ready: bool = True
    file: File = field(init=False)

    def memregion(self, index: int) -> DeviceBar | None:
        """nvgrace_gpu_memregion: the memory behind a region; None for a region that is a BAR of the device itself."""
        if index == USEMEM_REGION_INDEX:
            return self.pdev.bars.get(index, _NONE)
        region = self.pdev.bars.get(index) if index == RESMEM_REGION_INDEX else None
        return region if region is not None and _memlength(region) else None


class NvgraceGpu(Driver):
    """The nvgrace-gpu driver of one linked kernel."""

    name = "nvgrace_gpu"
    kernel_names: ClassVar[tuple[str, ...]] = ("nvgrace-gpu-vfio-pci",)
    config_symbol = "NVGRACE_GPU_VFIO_PCI"
    provides: ClassVar[tuple[str, ...]] = ("nvgrace_gpu_mmap", "nvgrace_gpu_vfio_pci_huge_fault")
    consumes: ClassVar[tuple[str, ...]] = (
        "register_pfn_address_space",
        "remap_pfn_range",
        "unmap_mapping_range",
        "vmf_insert_pfn",
        "vmf_insert_pfn_pmd",
        "vmf_insert_pfn_pud",
    )
    sample: ClassVar[Device] = Device(
        "gpu",
        "0009:01:00.0",
        {
            RESMEM_REGION_INDEX: DeviceBar(RESMEM_REGION_INDEX, 1 << 30, 1 << 41),
            USEMEM_REGION_INDEX: DeviceBar(USEMEM_REGION_INDEX, 2 << 30, 1 << 40),
        },
        driver="nvgrace_gpu",
    )

    @classmethod
    def region(cls, kernel: Image, request: Request, others: Sequence[Request]) -> RegionRules:
        """Tell the planner how a region of the GPU's memory is mapped."""
        return region_rules(kernel, request)

    def boot(self, machine: Machine) -> None:
        """Begin without devices; settle whether mappings are filled at mmap or by faults."""
        super().boot(machine)
        kernel = machine.kernel
        self.devices: dict[str, NvgraceGpuPciCoreDevice] = {}
        self._faults = kernel.has("nvgrace-huge-fault")
        huge = kernel.config.enabled("ARCH_SUPPORTS_HUGE_PFNMAP")
        self._vm_ops = VmOperations(fault=None)  # vma_dummy_vm_ops: all is there from the start
        if self._faults:
            self._vm_ops = VmOperations(
                fault=lambda vmf: self._huge_fault(vmf, 0),
                huge_fault=self._huge_fault if huge else None,
                alike=lambda vmf: vmf.vma.vm_end - vmf.address,  # a region lies in one piece
            )

    # devices

    def probe(self, device: Device) -> File:
        """Bind a device, with its memory decode on, and open it: its memory is registered for memory failure."""
        nvdev = NvgraceGpuPciCoreDevice(device, device.command | PCI_COMMAND_MEMORY)
        nvdev.file = self.open(nvdev)
        self.devices[device.name] = nvdev
        if self._faults and self.kernel.has("memory-failure-pfn"):
            for index in (RESMEM_REGION_INDEX, USEMEM_REGION_INDEX):
                self._register_pfn_range(nvdev, index)
        return nvdev.file

    def _register_pfn_range(self, nvdev: NvgraceGpuPciCoreDevice, index: int) -> None:
        """nvgrace_gpu_vfio_pci_register_pfn_range."""
        region = nvdev.memregion(index)
        if region is None or not _memlength(region):
            return
        mm = self.machine.mm
        shift = self.kernel.geometry.PAGE_SHIFT
        pgoff = self.mmap_offset(index, 0) >> shift
        space = mm.PfnSpace(nvdev.file.f_mapping, region.phys >> shift, _memlength(region) >> shift, pgoff)
        mm.register_pfn_address_space(self.machine, space)

    def mmap_offset(self, bar: int, offset: int) -> int:
        """VFIO_PCI_INDEX_TO_OFFSET: the region index in the bits from 40 up."""
        return (bar << VFIO_PCI_OFFSET_SHIFT) + offset

    def file_operations(self) -> FileOperations:
        """No PROT_EXEC where the file system of anonymous inodes allows none (`vfio-mmap-noexec`)."""
        return replace(super().file_operations(), noexec=self.kernel.has("vfio-mmap-noexec"))

    def path(self, file: File) -> str:
        """A device's file has no place in a file system (vfio_device_open_file)."""
        return "anon_inode:[vfio-device]"

    def _place(self, vma: VmArea) -> tuple[int, int]:
        """The region and the page in it with which a vma starts."""
        return divmod(vma.vm_pgoff, 1 << (VFIO_PCI_OFFSET_SHIFT - self.kernel.geometry.PAGE_SHIFT))

    def mmap(self, file: File, vma: VmArea) -> int:
        """nvgrace_gpu_mmap: -EINVAL beyond the memory, whatever the size of the BAR that is shown.

        A private mapping is not refused. With remap_pfn_range vm_pgoff becomes the first PFN, as a copied pfnmap needs
        it where no entry is special. Refused: a region that is a BAR of the device itself, which vfio-pci maps.
        """
        nvdev: NvgraceGpuPciCoreDevice = file.private_data
        shift = self.kernel.geometry.PAGE_SHIFT
        index, pgoff = self._place(vma)
        region = nvdev.memregion(index)
        if region is None:
            raise Refused("nvgrace_gpu_mmap", f"region {index} is left to vfio-pci; 2 and 4 are the GPU's memory")
        if (pgoff << shift) + vma.size > _memlength(region):
            return -EINVAL
        if index == RESMEM_REGION_INDEX:
            if self.kernel.has("vfio-allow-any-uncached"):
                vma.vm_flags |= VM_ALLOW_ANY_UNCACHED
            vma.vm_page_prot = self.kernel.ops.pgprot_writecombine(vma.vm_page_prot)
        vma.vm_ops = self._vm_ops
        vma.vm_private_data = nvdev
        if self._faults:
            vma.vm_flags |= VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP
            return 0
        start_pfn = (region.phys >> shift) + pgoff
        ret = self.machine.mm.remap_pfn_range(vma, vma.vm_start, start_pfn, vma.size, vma.vm_page_prot)
        if not ret:
            vma.vm_pgoff = start_pfn
        return int(ret)

    # faults

    def _huge_fault(self, vmf: VmFault, order: int) -> int:
        """nvgrace_gpu_vfio_pci_huge_fault: the block of the order around the address, where it and its PFN are aligned
        and it lies in the vma; else fall back."""
        vma = vmf.vma
        nvdev: NvgraceGpuPciCoreDevice = vma.vm_private_data
        mm = self.machine.mm
        shift = self.kernel.geometry.PAGE_SHIFT
        size = 1 << (shift + order)
        index, pgoff = self._place(vma)
        region = nvdev.memregion(index)
        if region is None:
            return mm.VM_FAULT_SIGBUS
        address = vmf.address & -size
        pfn = (region.phys >> shift) + pgoff + ((address - vma.vm_start) >> shift)
        if order and (address < vma.vm_start or address + size > vma.vm_end or pfn % (1 << order)):
            return mm.VM_FAULT_FALLBACK
        if not nvdev.ready or not nvdev.command & PCI_COMMAND_MEMORY:
            return mm.VM_FAULT_SIGBUS
        return self._insert(vmf, order, pfn)

    def _insert(self, vmf: VmFault, order: int, pfn: int) -> int:
        """vfio_pci_vmf_insert_pfn."""
        kernel = self.kernel
        if order == 0:
            return self.machine.mm.vmf_insert_pfn(vmf.vma, vmf.address, pfn)
        if order == kernel.geometry.PMD_ORDER and kernel.config.enabled("ARCH_SUPPORTS_PMD_PFNMAP"):
            return self.machine.mm.vmf_insert_pfn_pmd(vmf, pfn, False)
        if order == kernel.geometry.PUD_ORDER and kernel.config.enabled("ARCH_SUPPORTS_PUD_PFNMAP"):
            return self.machine.mm.vmf_insert_pfn_pud(vmf, pfn, False)
        return self.machine.mm.VM_FAULT_FALLBACK

    # actions

    def actions(self) -> Mapping[str, Action]:
        """What scenarios may do with nvgrace-gpu."""
        return {
            "memory_decode": Action(self._memory_decode, {"device": "str", "enabled": "bool"}),
            "gpu_reset": Action(self._gpu_reset, {"device": "str", "ready": "bool"}, frozenset({"ready"})),
        }

    def _device(self, name: str) -> NvgraceGpuPciCoreDevice:
        if name not in self.devices:
            raise Unknown("device", name, self.devices)
        return self.devices[name]

    def _memory_decode(self, run: ScenarioRun, device: str, enabled: bool) -> dict[str, Any]:
        """Write the memory bit of the PCI command register through the config region; clearing it zaps."""
        nvdev = self._device(device)
        if enabled:
            nvdev.command |= PCI_COMMAND_MEMORY
        else:
            self._zap(nvdev)
            nvdev.command &= ~PCI_COMMAND_MEMORY
        return {"command": hex(nvdev.command)}

    def _gpu_reset(self, run: ScenarioRun, device: str, ready: bool = True) -> dict[str, Any]:
        """VFIO_DEVICE_RESET; `ready`: the GPU's memory answers again within the time that a fault waits for it."""
        nvdev = self._device(device)
        if not nvdev.pdev.reset_works:
            return {"result": errorcode[EINVAL]}
        self._zap(nvdev)
        nvdev.ready = ready
        return {}

    def _zap(self, nvdev: NvgraceGpuPciCoreDevice) -> None:
        """vfio_pci_zap_bars goes by file offset: what remap_pfn_range mapped, whose vm_pgoff is a PFN, it finds only by
        chance."""
        self.machine.mm.unmap_mapping_range(nvdev.file.f_mapping, 0, VFIO_PCI_ROM_REGION_INDEX << VFIO_PCI_OFFSET_SHIFT)
