"""vfio type1: what a DMA map of user memory does to a pfnmap (drivers/vfio/vfio_iommu_type1.c).

Pinned by the `dma.*`, `first_by_dma_map` and fuzz.* records of 6.1.192, 6.12.117 and 7.3.4; the loop of
`type1-pfnmap-batch` is read from its patch, its counts are recorded. One container holds all devices. The IOMMU's own
tables, its reserved ranges and the locked-memory limit are not modelled.
"""

from __future__ import annotations

from dataclasses import field
from errno import EAGAIN, EEXIST, EFAULT, EINVAL, EOVERFLOW

from pfnmap import Machine, MmStruct, VmArea
from pfnmap.limits import bounded
from pfnmap.records import dataclass
from pfnmap.vm_flags import VM_PFNMAP

__all__ = ["VfioDma", "VfioIommu"]

_WORD = 1 << 64
_POINTER = 8
_APERTURE = 1 << 48
"""Where the IOMMU's addresses end: its width is inferred. Recorded is that the last page of 64 bits lies beyond it
(`unpinned.dma_map.*.bad_arguments`)."""


@dataclass
class VfioDma:
    """vfio_dma: `size` bytes from `iova` on are mapped to memory of `mm` from `vaddr` on; `pages` are pinned (PFNs)."""

    mm: MmStruct
    iova: int
    vaddr: int
    write: bool
    size: int = 0
    pages: list[int] = field(default_factory=list)
    lookups: int = 0


class VfioIommu:
    """vfio_iommu: a type1v2 container with an IOMMU domain."""

    def __init__(self, machine: Machine) -> None:
        kernel = machine.kernel
        self._machine = machine
        self._mm = machine.mm
        self._huge = kernel.has("huge-pfnmap")
        self._batch = kernel.has("type1-pfnmap-batch")
        self._wraps = -EOVERFLOW if kernel.has("type1-dma-overflow") else -EINVAL
        self._page = kernel.geometry.PAGE_SIZE
        self._shift = kernel.geometry.PAGE_SHIFT
        self._dmas: list[VfioDma] = []

    def map_dma(self, mm: MmStruct, iova: int, vaddr: int, size: int, write: bool) -> int:
        """VFIO_IOMMU_MAP_DMA of `size` bytes; return 0 or -errno.

        -EINVAL: not page-aligned, empty, an address wraps (-EOVERFLOW with `type1-dma-overflow`), or the IOMMU has no
        such address. -EEXIST: something is mapped there. -EFAULT: a page
        cannot be had; what was mapped before it is unmapped again, but the entries that were faulted in stay (RULES
        28).
        """
        if not size or (size | iova | vaddr) % self._page:
            return -EINVAL
        if max(iova, vaddr) + size > _WORD:
            return self._wraps
        if self._overlapping(iova, size):
            return -EEXIST
        if iova + size > _APERTURE:
            return -EINVAL
        dma = VfioDma(mm, iova, vaddr, write)
        self._dmas.append(dma)
        batch: list[int] = []
        while dma.size < size:
            got = self._pin_pages_remote(dma, vaddr + dma.size, (size - dma.size) >> self._shift, batch)
            if got < 0:
                dma.pages += batch
                self._remove(dma)
                return got
            dma.size += got << self._shift
        return 0

    def unmap_dma(self, iova: int, size: int) -> tuple[int, int]:
        """VFIO_IOMMU_UNMAP_DMA; return (0 or -errno, bytes unmapped).

        A range with nothing in it unmaps 0 bytes; one that cuts a mapping in two is -EINVAL.
        """
        if not size or (size | iova) % self._page:
            return -EINVAL, 0
        if iova + size > _WORD:
            return self._wraps, 0
        found = self._overlapping(iova, size)
        if any(dma.iova < iova or dma.iova + dma.size > iova + size for dma in found):
            return -EINVAL, 0
        for dma in found:
            self._remove(dma)
        return 0, sum(dma.size for dma in found)

    def _overlapping(self, iova: int, size: int) -> list[VfioDma]:
        """vfio_find_dma, of all."""
        return [dma for dma in self._dmas if dma.iova < iova + size and iova < dma.iova + dma.size]

    def _remove(self, dma: VfioDma) -> None:
        """vfio_remove_dma: pages go back; a pfnmap's PFNs have no page behind them and no reference."""
        self._dmas.remove(dma)
        self._mm.unpin_user_pages(self._machine, dma.pages)

    def _pin_pages_remote(self, dma: VfioDma, vaddr: int, npages: int, batch: list[int]) -> int:
        """vfio_pin_pages_remote: get up to `npages` pages that are physically in a row; return how many, or -errno.

        `batch`: pages pinned before and not used yet. The PFN of a pfnmap that turns out not to continue the row is
        forgotten, and walked to once more by the next call.
        """
        base = -1
        pinned = 0
        ended: tuple[int, int] | None = None  # the look-up that ended those for the pages before
        while pinned < npages:
            if not batch:
                at = vaddr + (pinned << self._shift)
                got, pfn = ended or self._vaddr_get_pfns(dma, at, npages - pinned, batch)
                ended = None
                if got < 0:
                    return got
                if not batch:
                    if base < 0:
                        base = pfn
                    if pfn != base + pinned:
                        break
                    pinned += got
                    if got == 1 and self._without_pages(pfn + 1, npages - pinned):
                        pinned += self._alike(dma, at + self._page, npages - pinned)
                        at = vaddr + (pinned << self._shift)
                        done, ended = self._not_mapped(dma, at, npages - pinned, base + pinned, batch)
                        pinned += done
                    continue
            if base < 0:
                base = batch[0]
            if batch[0] != base + pinned:
                break
            dma.pages.append(batch.pop(0))
            pinned += 1
        return pinned

    def _vaddr_get_pfns(self, dma: VfioDma, vaddr: int, npages: int, batch: list[int]) -> tuple[int, int]:
        """vaddr_get_pfns: pin pages into `batch` or, for a pfnmap, find a PFN; return (how many or -errno, first
        PFN)."""
        dma.lookups = bounded("dma_map", dma.lookups + 1, unit="look-ups")
        mm = self._mm
        flags = mm.FOLL_LONGTERM | (mm.FOLL_WRITE if dma.write else 0)
        with mm.mmap_lock(dma.mm):
            ret = mm.pin_user_pages_remote(dma.mm, vaddr, min(npages, self._page // _POINTER), flags, batch)
            if ret > 0:
                return ret, batch[0]
            while True:
                vma = dma.mm.vma_lookup(vaddr)
                if vma is None or not vma.vm_flags & VM_PFNMAP:
                    return ret, 0
                ret, pfn, pages = self._follow_fault_pfn(vma, vaddr, dma.write)
                if ret != -EAGAIN:
                    break
        if ret:
            return ret, 0
        if mm.pfn_valid(self._machine, pfn):
            return -EFAULT, 0
        return min(npages, pages), pfn

    def _without_pages(self, pfn: int, count: int) -> bool:
        """Tell whether for certain no PFN of [pfn, pfn + count) has a struct page."""
        return self._machine.phys.holds_none_of(pfn << self._shift, count << self._shift)

    def _alike(self, dma: VfioDma, vaddr: int, npages: int) -> int:
        """Find the pages of a pfnmap that answer as the one before them; return how many."""
        vma = dma.mm.vma_lookup(vaddr)
        if vma is None:
            return 0
        with self._mm.mmap_lock(dma.mm):
            return self._mm.follow_again(vma, vaddr, npages)

    def _not_mapped(
        self, dma: VfioDma, vaddr: int, npages: int, pfn: int, batch: list[int]
    ) -> tuple[int, tuple[int, int] | None]:
        """Look up the pages of a pfnmap from `vaddr` on up to one that a PTE maps already, or that does not map to the
        PFN that follows, the first of them to `pfn`; return how many, and what that one answered if it was asked."""
        ended: tuple[int, int] | None = None

        def access(address: int) -> bool:
            nonlocal ended
            vma, leaf = dma.mm.vma_lookup(address), dma.mm.tables.leaf(address)
            if vma is None or not vma.vm_flags & VM_PFNMAP or (leaf is not None and leaf[0] == "pte"):
                return False
            on = (address - vaddr) >> self._shift
            got, found = self._vaddr_get_pfns(dma, address, npages - on, batch)
            if (got, found) == (1, pfn + on) and not batch:
                return True
            ended = None if batch else (got, found)
            return False

        done = 0
        for _, pages, _ in self._mm.each_page(dma.mm, vaddr, vaddr + (npages << self._shift), access, "dma_map"):
            done += pages
        return done, ended

    def _follow_fault_pfn(self, vma: VmArea, vaddr: int, write: bool) -> tuple[int, int, int]:
        """follow_fault_pfn: look up, fault in if that fails, look up again; return (0 or -errno, PFN, pages).

        -EAGAIN: mmap_lock was let go, the vma may be gone. -EFAULT: not writable but to be written.
        """
        found = self._follow(vma, vaddr)
        if found is None:
            mm = self._mm
            flags = mm.FAULT_FLAG_REMOTE | (mm.FAULT_FLAG_WRITE if write else 0)
            ret, unlocked = mm.fixup_user_fault(vma.vm_mm, vaddr, flags)
            if unlocked:
                return -EAGAIN, 0, 0
            if ret:
                return ret, 0, 0
            found = self._follow(vma, vaddr)
            if found is None:
                return -EINVAL, 0, 0
        pfn, writable, pages = found
        return (-EFAULT if write and not writable else 0), pfn, pages

    def _follow(self, vma: VmArea, vaddr: int) -> tuple[int, bool, int] | None:
        """Look an address up: its PFN, whether it is writable, and for how many pages from it on that holds."""
        if not self._huge:
            pte = self._mm.follow_pte(vma, vaddr)
            ops = self._machine.kernel.ops
            return None if pte is None else (ops.pte_pfn(pte), bool(ops.pte_write(pte)), 1)
        with self._mm.follow_pfnmap(vma, vaddr) as args:
            if args is None:
                return None
            pages = 1
            if self._batch:
                pages = ((vaddr | (args.addr_mask ^ (_WORD - 1))) + 1 - vaddr) >> self._shift
            return args.pfn, args.writable, pages
