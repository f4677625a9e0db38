"""vfio-pci: mapping BARs, memory decode, what scenarios do with it (drivers/vfio/pci/vfio_pci_core.c).

Pinned by the matrix.* and disable.* records of 6.1.192, 6.12.117 and 7.3.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from errno import EINVAL, errorcode
from typing import Any, ClassVar

from pfnmap import (
    Action,
    BadInput,
    Device,
    Driver,
    File,
    FileOperations,
    Has,
    Machine,
    Refused,
    ScenarioRun,
    Unknown,
    VmArea,
    hookimpl,
)
from pfnmap.contract.dma import DmaBackend
from pfnmap.contract.mapping import HeldFile, LoggedFault, MappedPart
from pfnmap.contract.option import PlanOption
from pfnmap.contract.plan import Image, RegionRules, Request
from pfnmap.host.reading import InputKind
from pfnmap.vm_flags import VM_ALLOW_ANY_UNCACHED, VM_DONTDUMP, VM_DONTEXPAND, VM_IO, VM_PFNMAP, VM_SHARED

from .barmap import BarMap
from .device import PCI_COMMAND_MEMORY, VFIO_PCI_OFFSET_SHIFT, VFIO_PCI_ROM_REGION_INDEX, VfioPciCoreDevice
from .fault import FaultHandler
from .held import held, logged
from .inputs import INPUTS
from .iommufd_actions import IommufdActions
from .maps import mapped
from .plan import DMA, Iommufd, Type1, region_rules
from .type1 import VfioIommu


def _result(error: int) -> dict[str, Any]:
    """The result of a system call: "ok", or the name of a negative errno."""
    return {"result": errorcode[-error] if error else "ok"}


class VfioPci(Driver):
    """The vfio-pci driver of one linked kernel."""

    name = "vfio_pci"
    kernel_names: ClassVar[tuple[str, ...]] = ("vfio-pci",)
    config_symbol = "VFIO_PCI"
    inputs: ClassVar[Mapping[str, InputKind]] = INPUTS
    provides: ClassVar[tuple[str, ...]] = (
        "vfio_pci_core_mmap",
        "vfio_pci_mmap_huge_fault",
        "follow_fault_pfn",
        "iopt_map_user_pages",
    )
    consumes: ClassVar[tuple[str, ...]] = (
        "each_page",
        "fixup_user_fault",
        "follow_again",
        "follow_pfnmap",
        "follow_pte",
        "insert_pfns",
        "ioremap",
        "iounmap",
        "is_poisoned",
        "mmap_lock",
        "pfn_valid",
        "pin_user_pages_fast",
        "pin_user_pages_remote",
        "register_pfn_address_space",
        "release_mem_region",
        "remap_pfn_range",
        "request_mem_region",
        "unmap_mapping_range",
        "unpin_user_pages",
        "vmf_insert_pfn",
        "vmf_insert_pfn_pmd",
        "vmf_insert_pfn_pud",
        "zap_vma_ptes",
    )
    log_functions: ClassVar[tuple[str, ...]] = ("vfio_pci_mmap_huge_fault",)
    expected_failures: ClassVar[Mapping[str, str]] = {
        f"unaligned-falls-back@{arch} posted-v2": "the posted series lacks vfio-unaligned-pfn-fallback"
        for arch in ("plain", "arm64", "x86_64")
    }

    dma_backends: ClassVar[tuple[DmaBackend, ...]] = (Type1(), Iommufd())
    plan_options: ClassVar[tuple[PlanOption, ...]] = (DMA,)

    @classmethod
    def region(cls, kernel: Image, request: Request, others: Sequence[Request]) -> RegionRules:
        """Tell the planner how a BAR is mapped."""
        return region_rules(kernel, request, others)

    @hookimpl
    def kconfig(self, has: Has) -> str:
        """The VFIO symbols."""
        from pfnmap.kconfig import fragment

        return fragment(__package__, has)

    @classmethod
    def mapped(cls, path: str, offset: int | None, has: Has) -> MappedPart | None:
        """Return the part of a region that a line of /proc/PID/maps maps."""
        return mapped(path, offset, has)

    @classmethod
    def held(cls, link: str, fdinfo: str) -> HeldFile | None:
        """See `held`."""
        return held(link, fdinfo)

    @classmethod
    def logged(cls, line: str) -> LoggedFault | None:
        """See `logged`."""
        return logged(line)

    def __init__(self) -> None:
        self._iommufd = IommufdActions(lambda device: self._device(device).memory_enabled)

    def boot(self, machine: Machine) -> None:
        """Begin without devices; settle which fault handler this release has."""
        super().boot(machine)
        self.devices: dict[str, VfioPciCoreDevice] = {}
        self._fault = FaultHandler(machine)
        self._vm_ops = self._fault.vm_operations()
        self._f_op = replace(
            super().file_operations(), noexec=self.kernel.has("vfio-mmap-noexec"), get_mapping_order=self._mapping_order
        )
        self._iommu = VfioIommu(machine)
        self._iommufd.boot(machine)

    # devices

    def probe(self, device: Device) -> File:
        """Bind a device, with its memory decode on, and open it. Raises Refused where there is no vfio-pci."""
        if not self.kernel.has("vfio-pci"):
            raise Refused(f"binding {device.name}", f"{self.kernel.release.name} has no vfio-pci")
        supported = frozenset(i for i in device.bars if self._bar_mmap_supported(device, i))
        barmap = BarMap(self.machine, device)
        vdev = VfioPciCoreDevice(device, device.command | PCI_COMMAND_MEMORY, supported, barmap)
        vdev.file = self.open(vdev)
        self.devices[device.name] = vdev
        if self.kernel.has("memory-failure-pfn-unmap"):
            self._register_pfns(vdev)
        return vdev.file

    def remove(self, device: Device) -> None:
        """Close the device; while it is mapped its file stays open, which is refused."""
        vdev = self.devices.pop(device.name)
        if vdev.file.f_mapping.i_mmap:
            raise Refused("vfio_detach", f"{device.name} is mapped still, and closed with its last mapping")
        vdev.barmap.release()

    def _register_pfns(self, vdev: VfioPciCoreDevice) -> None:
        """The discussed policy needs the driver's say on which PFNs it maps; the merged one vfio-pci does not use."""
        mm = self.machine.mm
        shift = self.kernel.geometry.PAGE_SHIFT
        for index, bar in vdev.pdev.bars.items():
            pgoff = self.mmap_offset(index, 0) >> shift
            space = mm.PfnSpace(
                vdev.file.f_mapping, bar.phys >> shift, -(-bar.size // self.kernel.geometry.PAGE_SIZE), pgoff
            )
            mm.register_pfn_address_space(self.machine, space)

    def _bar_mmap_supported(self, device: Device, index: int) -> bool:
        """vfio_pci_probe_mmaps: no BAR without VFIO_PCI_MMAP; one that is smaller than a page needs the whole page, at
        the page's start.

        That the rest of the page is free on the bus is taken from the device's own BARs; where the region's flag is
        known (`DeviceBar.mmapable`), it decides.
        """
        bar = device.bars[index]
        if bar.mmapable is not None:
            return bar.mmapable
        config = self.kernel.config
        if config.enabled("VFIO_PCI_CORE") and config.value("VFIO_PCI_MMAP") == "n":
            return False
        page = self.kernel.geometry.PAGE_SIZE
        if bar.size >= page:
            return True
        others = [b for i, b in device.bars.items() if i != index]
        return bar.phys % page == 0 and not any(bar.phys <= b.phys < bar.phys + page for b in others)

    def mmap_offset(self, bar: int, offset: int) -> int:
        """VFIO_PCI_INDEX_TO_OFFSET: the region index in the bits from 40 up."""
        return (bar << VFIO_PCI_OFFSET_SHIFT) + offset

    def file_operations(self) -> FileOperations:
        """No PROT_EXEC where the file system of anonymous inodes allows none (`vfio-mmap-noexec`)."""
        return self._f_op

    def _mapping_order(self, file: File, offset: int, length: int) -> int:
        """The order of the largest leaf of which an aligned block lies in the range, as far as it is in the BAR.

        Posted, not merged (the change get-mapping-order). That a smaller leaf is tried where the PUD's block does not
        fit is inference.
        """
        geometry, config = self.kernel.geometry, self.kernel.config
        vdev: VfioPciCoreDevice = file.private_data
        index, start = divmod(offset, 1 << VFIO_PCI_OFFSET_SHIFT)
        if index not in vdev.bar_mmap_supported:
            return 0
        end = min(start + length, -(-vdev.pdev.bars[index].size // geometry.PAGE_SIZE) * geometry.PAGE_SIZE)
        for level, order in (("pud", geometry.PUD_ORDER), ("pmd", geometry.PMD_ORDER)):
            size = geometry.PAGE_SIZE << order
            fits = -(-start // size) * size + size <= end
            if fits and config.enabled(f"ARCH_SUPPORTS_{level.upper()}_PFNMAP"):
                return order
        return 0

    def path(self, file: File) -> str:
        """A device's file has no place in a file system (vfio_device_open_file)."""
        return "anon_inode:[vfio-device]"

    def mmap(self, file: File, vma: VmArea) -> int:
        """vfio_pci_core_mmap: -EINVAL for a private mapping, a region that is no BAR or cannot be mapped, and a range
        beyond the BAR; then what its own mapping of the BAR gives (`BarMap.setup`)."""
        vdev: VfioPciCoreDevice = file.private_data
        geometry = self.kernel.geometry
        index, pgoff = divmod(vma.vm_pgoff, 1 << (VFIO_PCI_OFFSET_SHIFT - geometry.PAGE_SHIFT))
        if not vma.vm_flags & VM_SHARED or index >= VFIO_PCI_ROM_REGION_INDEX:
            return -EINVAL
        if index not in vdev.bar_mmap_supported:
            return -EINVAL
        bar = vdev.pdev.bars[index]
        phys_len = -(-bar.size // geometry.PAGE_SIZE) * geometry.PAGE_SIZE
        if (pgoff << geometry.PAGE_SHIFT) + vma.size > phys_len:
            return -EINVAL
        error = vdev.barmap.setup(index, bar)
        if error:
            return error
        vma.vm_private_data = vdev
        ops = self.kernel.ops  # 6.1 decrypts in io_remap_pfn_range: the entries are the same
        vma.vm_page_prot = ops.pgprot_decrypted(ops.pgprot_noncached(vma.vm_page_prot))
        if not self.kernel.has("vfio-unmap-mapping-range"):
            vma.vm_pgoff = (bar.phys >> geometry.PAGE_SHIFT) + pgoff
        vma.vm_flags |= VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP
        if self.kernel.has("vfio-allow-any-uncached"):
            vma.vm_flags |= VM_ALLOW_ANY_UNCACHED
        vma.vm_ops = self._vm_ops
        if self.kernel.has("vfio-fault-mmaps"):
            return 0
        mm = self.machine.mm
        return int(mm.remap_pfn_range(vma, vma.vm_start, vma.vm_pgoff, vma.size, vma.vm_page_prot))

    # actions

    def actions(self) -> Mapping[str, Action]:
        """What scenarios may do with vfio-pci."""
        return {
            "pci_memory": Action(self._pci_memory, {"device": "str", "enabled": "bool"}),
            "vfio_attach": Action(self._attach, {"device": "str"}),
            "vfio_detach": Action(self._detach, {"device": "str"}),
            "dev_dbg": Action(self._set_dev_dbg, {"enabled": "bool"}),
            "device_reset": Action(self._device_reset, {"device": "str"}),
            "dma_map": Action(self._dma_map, {"iova": "address", "va": "address", "length": "size", "prot": "str"}),
            "dma_unmap": Action(self._dma_unmap, {"iova": "address", "length": "size"}),
            **self._iommufd.actions(),
        }

    def _device(self, name: str) -> VfioPciCoreDevice:
        if name not in self.devices:
            raise Unknown("device", name, self.devices)
        return self.devices[name]

    def _attach(self, run: ScenarioRun, device: str) -> dict[str, Any]:
        """Bind a device that is not vfio-pci's so far, and open it."""
        if device in self.devices:
            raise BadInput("vfio_attach", f"{device} is bound by vfio-pci already")
        run.bind(device, self.name)
        return {}

    def _detach(self, run: ScenarioRun, device: str) -> dict[str, Any]:
        """Close a device that `vfio_attach` opened; it is then bound as it was before."""
        before = self._device(device).pdev.driver
        if before == self.name:
            raise BadInput("vfio_detach", f"{device} was not bound by vfio_attach")
        run.bind(device, before)
        return {}

    def _pci_memory(self, run: ScenarioRun, device: str, enabled: bool) -> dict[str, Any]:
        """Write the memory bit of the PCI command register through the config region (vfio_basic_config_write).

        Clearing it zaps every mapping of the device, also when it was clear already (RULES 29).
        """
        vdev = self._device(device)
        if enabled:
            vdev.command |= PCI_COMMAND_MEMORY
            self._iommufd.iopt.restore(device)
        else:
            self._zap(vdev)
            self._iommufd.iopt.revoke(device)
            vdev.command &= ~PCI_COMMAND_MEMORY
        return {"command": hex(vdev.command)}

    def _zap(self, vdev: VfioPciCoreDevice) -> None:
        mm = self.machine.mm
        if self.kernel.has("vfio-unmap-mapping-range"):
            mm.unmap_mapping_range(vdev.file.f_mapping, 0, VFIO_PCI_ROM_REGION_INDEX << VFIO_PCI_OFFSET_SHIFT)
            return
        vmas, vdev.vma_list = vdev.vma_list, []
        for vma in vmas:
            mm.zap_vma_ptes(vma, vma.vm_start, vma.size)

    def _set_dev_dbg(self, run: ScenarioRun, enabled: bool) -> dict[str, Any]:
        """Switch the driver's dynamic-debug lines on or off."""
        self._fault.dev_dbg = enabled
        return {}

    def _device_reset(self, run: ScenarioRun, device: str) -> dict[str, Any]:
        """VFIO_DEVICE_RESET (vfio_pci_ioctl_reset): -EINVAL for a device that has no way to be reset; else the BARs are
        zapped as when memory decode goes off."""
        vdev = self._device(device)
        if not vdev.pdev.reset_works:
            return _result(-EINVAL)
        self._zap(vdev)
        return _result(0)

    def _dma_map(self, run: ScenarioRun, iova: int, va: int, length: int, prot: str) -> dict[str, Any]:
        """VFIO_IOMMU_MAP_DMA of the acting process's memory; `prot`: what the device may do, of r and w."""
        if prot not in ("r", "w", "rw"):
            raise BadInput("dma_map", f"prot {prot!r} is none of r, w, rw")
        return _result(self._iommu.map_dma(run.current, iova, va, length, "w" in prot))

    def _dma_unmap(self, run: ScenarioRun, iova: int, length: int) -> dict[str, Any]:
        """VFIO_IOMMU_UNMAP_DMA; `bytes` is the size field on return, which an error leaves alone."""
        error, unmapped = self._iommu.unmap_dma(iova, length)
        return {**_result(error), "bytes": length if error else unmapped}
