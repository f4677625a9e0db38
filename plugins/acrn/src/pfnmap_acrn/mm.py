"""acrn_vm_ram_map for VM_PFNMAP mappings (drivers/virt/acrn/mm.c of 6.12.117 and 6.1.192; read and not run).

Each page is looked up once, none is faulted in, and only the first page frame is kept: the hypervisor is told of one
range. It is told WB (write-back) whatever the entries say, and nobody tells it when the entries go: there is no mmu
notifier.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL
from typing import NamedTuple

from pfnmap import Machine, MmStruct, Refused, VmArea
from pfnmap.limits import bounded
from pfnmap.records import dataclass
from pfnmap.vm_flags import VM_PFNMAP

__all__ = ["AcrnVm", "Region"]

_WORD = 1 << 64


class Region(NamedTuple):
    """What the hypervisor was told to map: `size` bytes at `user_vm_pa` are those at `service_vm_pa`; `access` of the
    letters r, w, x."""

    user_vm_pa: int
    service_vm_pa: int
    size: int
    access: str


class _Found(NamedTuple):
    pfn: int
    writable: bool


@dataclass
class AcrnVm:
    """acrn_vm: a User VM that the process of a Service VM builds; `regions` in the order in which they were added."""

    machine: Machine
    regions: list[Region]

    def ram_map(self, mm: MmStruct, user_vm_pa: int, vma_base: int, length: int, access: str) -> int:
        """acrn_vm_ram_map: map `length` bytes of a process from `vma_base` on into the User VM; return 0 or -errno.

        -EINVAL: less than a page; beyond the end of the mapping; a page that no entry maps (follow_pfnmap_start);
        page frames that are not in a row. -EFAULT: an entry that is not writable where the VM shall write; a page of
        RAM; no mapping there (pin_user_pages_fast). The pages are checked in order, what is left of the last one is
        not. Raises Refused for memory that is no pfnmap, which is pinned.
        """
        pages = length >> self.machine.kernel.geometry.PAGE_SHIFT
        if not pages:
            return -EINVAL
        with self.machine.mm.mmap_lock(mm):
            vma = mm.vma_lookup(vma_base)
            if vma is None:
                return -EFAULT
            if not vma.vm_flags & VM_PFNMAP:
                raise Refused("acrn.ram_map", f"memory at {vma_base:#x} that is no pfnmap")
            if (vma_base + length) % _WORD > vma.vm_end:
                return -EINVAL
            error, start_pfn = self._check_pages(vma, vma_base, bounded("acrn.ram_map", pages), "w" in access)
        if not error:
            service_vm_pa = start_pfn << self.machine.kernel.geometry.PAGE_SHIFT
            self.regions.append(Region(user_vm_pa, service_vm_pa, length, access))
        return error

    def _check_pages(self, vma: VmArea, vma_base: int, pages: int, write: bool) -> tuple[int, int]:
        """Look up every page; return (0 or -errno of the first that does not do, the first page frame)."""
        kernel = self.machine.kernel
        start_pfn = 0
        for i in range(pages):
            found = self._follow(vma, vma_base + i * kernel.geometry.PAGE_SIZE)
            if found is None:
                return -EINVAL, 0
            if i == 0:
                start_pfn = found.pfn
            if write and not found.writable:
                return -EFAULT, 0
            if self.machine.mm.pfn_valid(self.machine, found.pfn):  # and not reserved: the model's RAM never is
                return -EFAULT, 0
            if found.pfn != start_pfn + i:
                return -EINVAL, 0
        return 0, start_pfn

    def _follow(self, vma: VmArea, address: int) -> _Found | None:
        kernel = self.machine.kernel
        if not kernel.has("huge-pfnmap"):
            pte = self.machine.mm.follow_pte(vma, address)
            return None if pte is None else _Found(kernel.ops.pte_pfn(pte), bool(kernel.ops.pte_write(pte)))
        with self.machine.mm.follow_pfnmap(vma, address) as args:
            return None if args is None else _Found(args.pfn, args.writable)
