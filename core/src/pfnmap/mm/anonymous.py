"""Private anonymous memory: its first touch, and copies on write (mm/memory.c, mm/rmap.c).

Base pages, and several at once where sizes of multi-size THP are switched on (`min.mthp.inherit`). A file of its own:
memory.c is long in the kernel too.
"""

from __future__ import annotations

from pfnmap.contract.fault import FAULT_FLAG_UNSHARE
from pfnmap.contract.phys import Page
from pfnmap.contract.slot import Slot, Table
from pfnmap.contract.vma import AnonVma, VmArea, VmFault
from pfnmap.errors import Refused
from pfnmap.mm import huge_memory
from pfnmap.mm.contpte import contpte_fold, contpte_unfold
from pfnmap.mm.mmu_notifier import mmu_notifier_invalidate_range
from pfnmap.mm.vm_normal_page import vm_normal_page
from pfnmap.vm_flags import VM_ACCESS_FLAGS, VM_MAYSHARE, VM_SHARED, VM_SOFTDIRTY, VM_WRITE

__all__ = ["anon_vma_prepare", "do_anonymous_page", "do_wp_page", "private_page", "unmap_page"]


def do_anonymous_page(vmf: VmFault) -> int:
    """Private anonymous memory: a read maps the zero page, a write a new one, or a block of new ones."""
    vma = vmf.vma
    mm = vma.vm_mm
    machine = mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    orders = [order for order in huge_memory.anonymous_thp_orders(vma) if _fits(vma, vmf.address, order)]
    if vmf.pmd is not None and ops.pmd_none(vmf.pmd.entry) and kernel.geometry.PMD_ORDER in orders:
        return _do_huge_pmd_anonymous_page(vmf)
    shift = kernel.geometry.PAGE_SHIFT
    table, index = mm.tables.alloc("pte", vmf.address)
    if not vmf.write:
        table[index] = ops.pte_mkspecial(ops.pfn_pte(machine.phys.zero_page >> shift, vma.vm_page_prot))
        return 0
    anon_vma_prepare(vma)
    count = _block(vmf, table, index, orders)
    index -= index % count
    pfn = machine.phys.alloc_pages(count) >> shift
    for n in range(count):
        entry = ops.pfn_pte(pfn + n, vma.vm_page_prot)
        if vma.vm_flags & VM_WRITE:
            entry = ops.pte_mkwrite(ops.pte_mkdirty(entry), vma.vm_flags)
        table[index + n] = entry
    contpte_fold(mm, table, index, count)
    return 0


def _do_huge_pmd_anonymous_page(vmf: VmFault) -> int:
    """A write maps a new huge page (`map_fixed_anon` of KVM guests), with a table kept for its split. Of what is
    done to it later copies and moves are refused (`refuse_anonymous_huge_page`), and so is the huge zero page of a
    read."""
    vma = vmf.vma
    mm = vma.vm_mm
    kernel = mm.kernel
    ops = kernel.ops
    assert vmf.pmd is not None
    if not vmf.write:
        raise Refused("anonymous huge page", "a read, which maps the huge zero page")
    anon_vma_prepare(vma)
    pfn = mm.machine.phys.alloc_pages(1 << kernel.geometry.PMD_ORDER) >> kernel.geometry.PAGE_SHIFT
    entry = ops.pmd_mkdirty(ops.pmd_mkhuge(ops.pfn_pmd(pfn, vma.vm_page_prot)))
    mm.tables.deposit(vmf.address & -kernel.geometry.size("pmd"))
    table, index = vmf.pmd
    table[index] = ops.pmd_mkwrite(entry, vma.vm_flags) if vma.vm_flags & VM_WRITE else entry
    return 0


def _fits(vma: VmArea, address: int, order: int) -> bool:
    """thp_vma_suitable_order: whether the aligned block around an address lies in the vma."""
    size = vma.vm_mm.kernel.geometry.PAGE_SIZE << order
    block = address & -size
    return vma.vm_start <= block and block + size <= vma.vm_end


def _block(vmf: VmFault, table: Table, index: int, orders: list[int]) -> int:
    """alloc_anon_folio: of how many pages the largest block is that is allowed and has no entry yet."""
    none = vmf.vma.vm_mm.kernel.ops.pte_none
    for order in orders:
        count = 1 << order
        first = index - index % count
        if count < len(table) and all(none(entry) for entry in table[first : first + count]):
            return count
    return 1


def anon_vma_prepare(vma: VmArea) -> None:
    """Give a vma an anon_vma: that of an adjacent one that it could merge with, else a new one (mm/rmap.c)."""
    if vma.anon_vma is not None:
        return
    changeable = VM_ACCESS_FLAGS | VM_SOFTDIRTY
    for other in (vma.vm_mm.find_vma(vma.vm_end), vma.vm_mm.previous(vma.vm_start)):
        if other is None or other.anon_vma is None or not other.anon_vma.singular or other.vm_file is not vma.vm_file:
            continue
        below, above = (vma, other) if other.vm_start == vma.vm_end else (other, vma)
        pages = below.size >> vma.vm_mm.kernel.geometry.PAGE_SHIFT
        adjacent = below.vm_end == above.vm_start and below.vm_pgoff + pages == above.vm_pgoff
        if adjacent and not (other.vm_flags ^ vma.vm_flags) & ~changeable and other.vm_policy is vma.vm_policy:
            vma.anon_vma = other.anon_vma
            return
    vma.anon_vma = AnonVma()


def do_wp_page(vmf: VmFault, slot: Slot) -> int:
    """A write to a PTE that is not writable, or a page that is to be unshared before it is pinned.

    A shared pfnmap without pfn_mkwrite is made writable in place (wp_pfn_shared), and so is a private page that
    nobody else has (wp_page_reuse); else the page is copied (wp_page_copy). Unsharing leaves the entry read-only.
    """
    vma = vmf.vma
    kernel = vma.vm_mm.kernel
    ops = kernel.ops
    table, index = slot
    contpte_unfold(vma.vm_mm, table, index, 1)
    old = table[index]
    unshare = bool(vmf.flags & FAULT_FLAG_UNSHARE)
    if not vma.vm_flags & (VM_SHARED | VM_MAYSHARE):
        page = private_page(vma, vmf.address, old)
        if page is None or not (page.exclusive or page.can_reuse):
            table[index] = _wp_page_copy(vma, vmf.address, old, unshare)
            return 0
        page.exclusive = True
    elif (page := private_page(vma, vmf.address, old)) is not None:
        page.dirty = True
    if unshare:
        return 0
    entry = ops.pte_mkdirty(ops.pte_mkyoung(old))
    if vma.vm_flags & VM_WRITE:
        entry = ops.pte_mkwrite(entry, vma.vm_flags)
    table[index] = ops.ptep_set_access_flags(old, entry)
    return 0


def _wp_page_copy(vma: VmArea, address: int, old: int, unshare: bool) -> int:
    """Return the PTE of a new page that takes the place of what `old` maps."""
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    anon_vma_prepare(vma)
    pfn = machine.phys.alloc_page() >> kernel.geometry.PAGE_SHIFT
    page = kernel.geometry.PAGE_SIZE
    mmu_notifier_invalidate_range(vma.vm_mm, address & -page, (address & -page) + page)
    unmap_page(vma, address, old)
    entry = ops.pfn_pte(pfn, vma.vm_page_prot)
    if unshare:
        return int(ops.pte_mksoft_dirty(entry) if ops.pte_soft_dirty(old) else entry)
    entry = ops.pte_mkdirty(ops.pte_mkyoung(entry))
    return int(ops.pte_mkwrite(entry, vma.vm_flags) if vma.vm_flags & VM_WRITE else entry)


def private_page(vma: VmArea, address: int, entry: int) -> Page | None:
    """The private page that a PTE of a vma maps: neither the zero page nor a pfnmap's."""
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    pfn = vm_normal_page(vma, address, entry)
    return None if pfn is None else machine.phys.ram.get(pfn << kernel.geometry.PAGE_SHIFT)


def unmap_page(vma: VmArea, address: int, entry: int) -> None:
    """An entry goes: the page behind it, if there is one, is mapped once less, and dirty where the entry was."""
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    pfn = vm_normal_page(vma, address, entry)
    if pfn is not None:
        page = machine.phys.ram[pfn << kernel.geometry.PAGE_SHIFT]
        page.dirty = page.dirty or bool(not page.anon and kernel.ops.pte_dirty(entry))
        machine.phys.unmap_page(pfn << kernel.geometry.PAGE_SHIFT)
