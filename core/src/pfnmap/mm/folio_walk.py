"""folio_walk_start: which folio does an address map (mm/pagewalk.c of 6.12.117)?

The form with `vm-normal-page-by-level` and that of the posted series are read from their patches, not run. A file of
its own beside pagewalk.py: it is a look-up of one address, without callbacks.
"""

from __future__ import annotations

from dataclasses import dataclass

from pfnmap.contract.entry import Level
from pfnmap.contract.slot import Slot
from pfnmap.contract.vma import VmArea
from pfnmap.errors import Misuse
from pfnmap.mm.locking import mmap_lock
from pfnmap.mm.vm_normal_page import is_zero_pfn, vm_normal_page, vm_normal_page_pmd, vm_normal_page_pud

__all__ = ["FW_ZEROPAGE", "FolioWalk", "folio_walk_start"]

FW_ZEROPAGE = 0x2


@dataclass(frozen=True)
class FolioWalk:
    """folio_walk: the `level` of the entry, the entry, and the PFN of the `page` there (None: the zero page)."""

    level: Level
    entry: int
    page: int | None


def folio_walk_start(vma: VmArea, address: int, flags: int = 0) -> FolioWalk | None:
    """Return what folio an address (bytes) of a vma maps, or None: nothing present, or no page behind the entry.

    `flags`: FW_ZEROPAGE takes the zero page for one. Raises Misuse without mmap_lock. The page-table lock that the
    kernel holds until folio_walk_end is not kept.
    """
    if not mmap_lock(vma.vm_mm).held:
        raise Misuse("folio_walk_start", "mmap_lock is not held")
    if not vma.vm_start <= address < vma.vm_end:
        vma.vm_mm.machine.warn_once("mm/pagewalk.c folio_walk_start")
        return None
    kernel = vma.vm_mm.kernel
    ops = kernel.ops
    tables = vma.vm_mm.tables
    huge = kernel.config.enabled("PGTABLE_HAS_HUGE_LEAVES")
    slot = tables.pud_slot(address)
    if slot is None or ops.pud_none(slot.entry):
        return None
    entry = slot.entry
    if huge and (not ops.pud_present(entry) or ops.pud_leaf(entry)):
        return _found(vma, address, "pud", entry, _pud_page(vma, address, entry))
    slot = tables.pmd_offset(slot, address)
    entry = slot.entry
    if ops.pmd_none(entry):
        return None
    if huge and (not ops.pmd_present(entry) or ops.pmd_leaf(entry)):
        return _found(vma, address, "pmd", entry, _pmd_page(vma, address, entry))
    return _pte_folio(vma, address, slot, flags)


def _found(vma: VmArea, address: int, level: Level, entry: int, page: int | None) -> FolioWalk | None:
    if page is None:
        return None
    geometry = vma.vm_mm.kernel.geometry
    offset = (address & (geometry.size(level) - 1)) >> geometry.PAGE_SHIFT
    return FolioWalk(level, entry, page + offset)


def _pud_page(vma: VmArea, address: int, pud: int) -> int | None:
    kernel = vma.vm_mm.kernel
    ops = kernel.ops
    if not ops.pud_present(pud):
        return None
    if kernel.has("vm-normal-page-by-level"):
        return vm_normal_page_pud(vma, address, pud)
    return None if ops.pud_devmap(pud) or ops.pud_special(pud) else int(ops.pud_pfn(pud))


def _pmd_page(vma: VmArea, address: int, pmd: int) -> int | None:
    kernel = vma.vm_mm.kernel
    if not kernel.ops.pmd_present(pmd):
        return None
    if not kernel.has("vm-normal-page-pmd-special") and kernel.ops.pmd_special(pmd):  # as posted, tested here
        return None
    return vm_normal_page_pmd(vma, address, pmd)


def _pte_folio(vma: VmArea, address: int, pmd: Slot, flags: int) -> FolioWalk | None:
    kernel = vma.vm_mm.kernel
    table, index = vma.vm_mm.tables.pte_offset(pmd, address)
    pte = table[index]
    if not kernel.ops.pte_present(pte):
        return None
    page = vm_normal_page(vma, address, pte)
    if page is not None:
        return FolioWalk("pte", pte, page)
    zero = flags & FW_ZEROPAGE and is_zero_pfn(vma.vm_mm.machine, kernel.ops.pte_pfn(pte))
    return FolioWalk("pte", pte, None) if zero else None
