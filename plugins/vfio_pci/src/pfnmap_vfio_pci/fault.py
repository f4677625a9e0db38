"""vfio-pci's fault handlers of every release (vfio_pci_mmap_huge_fault, vfio_pci_mmap_fault).

Pinned by the matrix.*, disable.*, dmesg.* and entry.* records of 6.1.192, 6.12.117 and 7.3.4; the handlers of 6.10,
of `posted-v2` and before `vfio-align-fault-to-order` are read from their sources and not run.
"""

from __future__ import annotations

from pfnmap import Machine, Message, VmArea, VmFault, VmOperations
from pfnmap.records import dataclass

from .device import VFIO_PCI_OFFSET_SHIFT, VfioPciCoreDevice

__all__ = ["FaultHandler"]

_WORD = 1 << 64


@dataclass
class _RateLimit:
    """dev_dbg_ratelimited's state: at most `burst` lines in `interval` milliseconds (lib/ratelimit.c)."""

    interval: int = 5000
    burst: int = 10
    begin: int | None = None
    printed: int = 0

    def allows(self, now: int) -> bool:
        """Tell whether a line may be printed at `now` (milliseconds), and count it."""
        if self.begin is None or now > self.begin + self.interval:
            self.begin, self.printed = now, 0
        self.printed += 1
        return self.printed <= self.burst


class FaultHandler:
    """The handlers of one machine's release. `dev_dbg`: whether they log (dynamic debug)."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.kernel = machine.kernel
        self.dev_dbg = False
        self._ratelimit = _RateLimit()
        self._shift = self.kernel.geometry.PAGE_SHIFT
        self._aligns = self.kernel.has("vfio-align-fault-to-order")
        self._unaligned_pfn_falls_back = self.kernel.has("vfio-unaligned-pfn-fallback")
        self._pfns_poisoned = self.kernel.has("memory-failure-pfn-unmap")

    def vm_operations(self) -> VmOperations | None:
        """Return the handlers of this release; None where mmap fills a mapping for good."""
        if self.kernel.has("huge-pfnmap"):
            huge = self.kernel.config.enabled("ARCH_SUPPORTS_HUGE_PFNMAP")
            return VmOperations(
                fault=lambda vmf: self.huge_fault(vmf, 0),
                huge_fault=self.huge_fault if huge else None,
                alike=self._alike,
            )
        if self.kernel.has("vfio-unmap-mapping-range"):
            return VmOperations(fault=self._fault_prefault)
        if not self.kernel.has("vfio-fault-mmaps"):
            return None
        return VmOperations(fault=self._fault_remap, open=self._open, close=self._close)

    def _vma_to_pfn(self, vma: VmArea) -> int:
        """The pfn of the vma's first page."""
        shift = self._shift
        index, pgoff = divmod(vma.vm_pgoff, 1 << (VFIO_PCI_OFFSET_SHIFT - shift))
        vdev: VfioPciCoreDevice = vma.vm_private_data
        return (vdev.pdev.bars[index].phys >> shift) + pgoff

    # faults from 6.12 on

    def huge_fault(self, vmf: VmFault, order: int) -> int:
        """vfio_pci_mmap_huge_fault."""
        mm = self.machine.mm
        vma = vmf.vma
        shift = self._shift
        size = 1 << (shift + order)
        address = vmf.address & -size if self._aligns else vmf.address
        pgoff = ((address - vma.vm_start) % _WORD) >> shift
        pfn = (self._vma_to_pfn(vma) + pgoff) % _WORD
        fits = not order or (address % size == 0 and vma.vm_start <= address and address + size <= vma.vm_end)
        if order and self._unaligned_pfn_falls_back:
            fits = fits and pfn % (1 << order) == 0
        if not fits:
            ret = mm.VM_FAULT_FALLBACK
        elif self.machine.poisoned and self._pfns_poisoned and mm.is_poisoned(self.machine, pfn, 1 << order):
            ret = mm.VM_FAULT_FALLBACK if order else mm.VM_FAULT_HWPOISON
        elif not vma.vm_private_data.memory_enabled:
            ret = mm.VM_FAULT_SIGBUS
        else:
            ret = self._insert(vmf, order, pfn)
        if self.dev_dbg:
            self._debug(vma, order, pgoff, ret)
        return ret

    def _alike(self, vmf: VmFault) -> int:
        """A BAR lies in one piece: all up to the vma's end, but where lines are logged or some may be poisoned."""
        return 0 if self.dev_dbg or self.machine.poisoned else vmf.vma.vm_end - vmf.address

    def _insert(self, vmf: VmFault, order: int, pfn: int) -> int:
        if order == 0:
            return self.machine.mm.vmf_insert_pfn(vmf.vma, vmf.address, pfn)
        kernel = self.kernel
        geometry = kernel.geometry
        if order == geometry.PMD_ORDER and kernel.config.enabled("ARCH_SUPPORTS_PMD_PFNMAP"):
            return self.machine.mm.vmf_insert_pfn_pmd(vmf, pfn, False)
        if order == geometry.PUD_ORDER and kernel.config.enabled("ARCH_SUPPORTS_PUD_PFNMAP"):
            return self.machine.mm.vmf_insert_pfn_pud(vmf, pfn, False)
        return self.machine.mm.VM_FAULT_FALLBACK

    def _debug(self, vma: VmArea, order: int, pgoff: int, ret: int) -> None:
        if not self._ratelimit.allows(self.machine.clock_ms):
            return
        index = vma.vm_pgoff >> (VFIO_PCI_OFFSET_SHIFT - self._shift)
        self.machine.trace.emit(
            Message(
                f"vfio-pci {vma.vm_private_data.pdev.bdf}: vfio_pci_mmap_huge_fault(,order = {order})"
                f" BAR {index} page offset {pgoff:#x}: {ret:#x}"
            )
        )

    # faults before 6.12: the first one populates the whole vma

    def _fault_prefault(self, vmf: VmFault) -> int:
        """vfio_pci_mmap_fault from `vfio-unmap-mapping-range` on: the page asked for, then the rest of the vma."""
        mm = self.machine.mm
        vma = vmf.vma
        if not vma.vm_private_data.memory_enabled:
            return mm.VM_FAULT_SIGBUS
        first = self._vma_to_pfn(vma)
        mm.insert_pfns(vma, vma.vm_start, first, vma.size, vma.vm_page_prot)
        return mm.VM_FAULT_NOPAGE

    def _fault_remap(self, vmf: VmFault) -> int:
        """vfio_pci_mmap_fault before: io_remap_pfn_range of the whole vma, once."""
        mm = self.machine.mm
        vma = vmf.vma
        vdev: VfioPciCoreDevice = vma.vm_private_data
        if not vdev.memory_enabled:
            return mm.VM_FAULT_SIGBUS
        if vma not in vdev.vma_list:
            mm.remap_pfn_range(vma, vma.vm_start, vma.vm_pgoff, vma.size, vma.vm_page_prot)
            vdev.vma_list.insert(0, vma)
        return mm.VM_FAULT_NOPAGE

    def _open(self, vma: VmArea) -> None:
        """vfio_pci_mmap_open: a vma that a split or a fork made starts empty."""
        self.machine.mm.zap_vma_ptes(vma, vma.vm_start, vma.size)

    def _close(self, vma: VmArea) -> None:
        """vfio_pci_mmap_close: forget a populated vma."""
        vdev: VfioPciCoreDevice = vma.vm_private_data
        if vma in vdev.vma_list:
            vdev.vma_list.remove(vma)
