"""What madvise does to the pages of memory that has some: COLD, PAGEOUT, FREE, POPULATE_*, COLLAPSE (mm/madvise.c,
mm/khugepaged.c). Addresses in bytes; errors are negative errnos.

The machine has no swap, so that PAGEOUT takes of anonymous memory only what FREE gave up. The neighbour.* records show
COLD, FREE, PAGEOUT, POPULATE_* and COLLAPSE of small mappings; the rest is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from errno import EINVAL, ENOMEM

from pfnmap.contract.machine import FOLL_WRITE
from pfnmap.contract.phys import Page
from pfnmap.contract.slot import Slot
from pfnmap.contract.vma import MmStruct, VmArea
from pfnmap.errors import Refused
from pfnmap.limits import bounded
from pfnmap.mm.anonymous import unmap_page
from pfnmap.mm.contpte import contpte_unfold
from pfnmap.mm.gup import populate_page
from pfnmap.mm.huge_memory import vma_thp_disabled
from pfnmap.mm.shmem import shmem_reclaim
from pfnmap.mm.vm_normal_page import vm_normal_page

__all__ = ["madvise_cold", "madvise_collapse", "madvise_free", "madvise_pageout", "madvise_populate"]


def madvise_cold(vma: VmArea, start: int, end: int) -> int:
    """A page that nobody else maps loses its accessed bit."""
    for _, slot, page in _pages(vma, start, end, "COLD"):
        if page.mapcount == 1:
            slot.table[slot.index] = vma.vm_mm.kernel.ops.pte_mkold(slot.entry)
    return 0


def madvise_free(vma: VmArea, start: int, end: int) -> int:
    """Anonymous pages are given up until they are written again: old and clean now."""
    if not vma.is_anonymous:
        return -EINVAL
    ops = vma.vm_mm.kernel.ops
    for _, slot, page in _pages(vma, start, end, "FREE"):
        slot.table[slot.index] = ops.pte_mkclean(ops.pte_mkold(slot.entry))
        page.lazyfree = True
    return 0


def madvise_pageout(vma: VmArea, start: int, end: int) -> int:
    """Reclaim at once what nobody else maps. Anonymous memory: a page that was given up and not written since goes, any
    other has nowhere to go. A page of shared memory is unmapped, and stays in the page cache where it is dirty."""
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    for address, slot, page in list(_pages(vma, start, end, "PAGEOUT")):
        if page.mapcount != 1:
            continue
        if not kernel.has("pageout-keeps-young"):
            slot.table[slot.index] = kernel.ops.pte_mkold(slot.entry)
        if not vma.is_anonymous:
            entry, slot.table[slot.index] = slot.entry, kernel.arch.empty("pte")
            unmap_page(vma, address, entry)
            shmem_reclaim(vma, address, page)
        elif not page.lazyfree:
            continue
        elif kernel.ops.pte_dirty(slot.entry):
            page.lazyfree = False
        elif not page.refs and not page.pins:
            frame = kernel.ops.pte_pfn(slot.entry) << kernel.geometry.PAGE_SHIFT
            slot.table[slot.index] = kernel.arch.empty("pte")
            machine.phys.unmap_page(frame)
    return 0


def _pages(vma: VmArea, start: int, end: int, advice: str) -> Iterator[tuple[int, Slot, Page]]:
    """Yield the addresses and PTEs of [start, end) behind which there is a page, with it; the zero page is none."""
    mm = vma.vm_mm
    machine = mm.machine
    geometry = machine.kernel.geometry
    bounded(f"madvise:{advice}", (end - start) >> geometry.PAGE_SHIFT)
    for address in range(start, end, geometry.PAGE_SIZE):
        leaf = mm.tables.leaf(address)
        if leaf is None or leaf[0] != "pte" or not machine.kernel.ops.pte_present(leaf[1].entry):
            continue
        pfn = vm_normal_page(vma, address, leaf[1].entry)
        if pfn is not None:
            contpte_unfold(mm, leaf[1].table, leaf[1].index, 1)
            yield address, leaf[1], machine.phys.ram[pfn << geometry.PAGE_SHIFT]


def madvise_populate(mm: MmStruct, start: int, end: int, advice: str) -> int:
    """Fault [start, end) in, page by page, for reading or writing; -ENOMEM at a hole, -EINVAL where the vma does not
    allow it (a pfnmap never does), after what came before."""
    page = mm.kernel.geometry.PAGE_SIZE
    bounded(f"madvise:{advice}", (end - start) // page)
    gup_flags = FOLL_WRITE if advice == "POPULATE_WRITE" else 0
    for address in range(start, end, page):
        vma = mm.vma_lookup(address)
        if vma is None:
            return -ENOMEM
        error = populate_page(vma, address, gup_flags)
        if error:
            return error
    return 0


def madvise_collapse(vma: VmArea, start: int, end: int) -> int:
    """Make huge pages of the whole blocks in [start, end): -EINVAL where none could be in the vma, or there is nothing
    to make one of."""
    mm = vma.vm_mm
    size = mm.kernel.geometry.size("pmd")
    block = (vma.vm_end - size) & -size
    if block < vma.vm_start or vma_thp_disabled(vma) or (vma.is_anonymous and vma.anon_vma is None):
        return -EINVAL
    first, last = -(-start // size) * size, end & -size
    if first == last:
        return 0
    for address in range(first, last, size):
        slot = mm.tables.pmd_slot(address)
        if slot is not None and not mm.kernel.ops.pmd_none(slot.entry):
            raise Refused("madvise:COLLAPSE", "a block that becomes one huge page")
    return -EINVAL
