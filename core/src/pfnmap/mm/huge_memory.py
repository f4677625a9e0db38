"""Huge leaves: which orders are allowed, inserting, zapping and splitting them (mm/huge_memory.c).

The page-fault part of `thp_vma_allowable_orders` is pinned by the thp.* records and FINDINGS F6, inserting by the
entry.* records, splitting by the mprotect.* and munmap.* ones.
"""

from __future__ import annotations

from pfnmap.contract.fault import VM_FAULT_NOPAGE, VM_FAULT_SIGBUS
from pfnmap.contract.slot import Slot
from pfnmap.contract.vma import MmStruct, VmArea, VmFault
from pfnmap.errors import Refused
from pfnmap.mm.contpte import contpte_fold
from pfnmap.mm.mmu_notifier import mmu_notifier_invalidate_range
from pfnmap.mm.pfnmap_track import setup_cachemode
from pfnmap.trace import Call, Install, KernelDied, Oops, Split
from pfnmap.vm_flags import VM_HUGEPAGE, VM_MAYWRITE, VM_NOHUGEPAGE, VM_PFNMAP, VM_SHARED, VM_WRITE

__all__ = [
    "anonymous_thp_orders",
    "anonymous_wp_huge_pmd",
    "bug_on_cow",
    "change_huge_pmd",
    "change_huge_pud",
    "copy_huge_pmd",
    "copy_huge_pud",
    "huge_pmd_set_accessed",
    "huge_pud_set_accessed",
    "is_anonymous_huge_page",
    "is_cow_mapping",
    "move_huge_pmd",
    "refuse_anonymous_huge_page",
    "split_huge_pmd",
    "split_huge_pud",
    "thp_vma_allowable_order",
    "vma_adjust_trans_huge",
    "vma_thp_disabled",
    "vmf_insert_pfn_pmd",
    "vmf_insert_pfn_pud",
    "zap_huge_pmd",
    "zap_huge_pud",
]


def vma_thp_disabled(vma: VmArea) -> bool:
    """Tell whether MADV_NOHUGEPAGE or prctl(PR_SET_THP_DISABLE) forbid huge leaves in a vma."""
    mm = vma.vm_mm
    if vma.vm_flags & VM_NOHUGEPAGE or mm.thp_disabled:
        return True
    return mm.thp_disabled_except_advised and not vma.vm_flags & VM_HUGEPAGE


def thp_vma_allowable_order(vma: VmArea) -> bool:
    """Tell whether a fault in this vma may ask for PMD and PUD orders at all (both or none, for a pfnmap).

    The sysfs knob gates pfnmaps until `thp-bypass-pfnmap`; the driver tests alignment and size itself. An anonymous
    vma answers False: the model maps anonymous memory with base pages only (as the recordings' processes do).
    """
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    if not kernel.config.enabled("TRANSPARENT_HUGEPAGE") or not vma.vm_flags & VM_PFNMAP:
        return False
    if not kernel.ops.has_transparent_hugepage() or vma_thp_disabled(vma):
        return False
    if kernel.has("thp-bypass-pfnmap"):
        return True
    return machine.thp == "always" or (machine.thp == "madvise" and bool(vma.vm_flags & VM_HUGEPAGE))


def anonymous_thp_orders(vma: VmArea) -> list[int]:
    """Return the orders of which sysfs and advice let anonymous memory of a vma be mapped at once, largest first:
    the PMD order and, with `anon-mthp`, those down to 2. Whether a block fits is another question."""
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    if not kernel.config.enabled("TRANSPARENT_HUGEPAGE"):
        return []
    if not kernel.ops.has_transparent_hugepage() or vma_thp_disabled(vma):
        return []
    largest = kernel.geometry.PMD_ORDER
    orders = range(largest, 1 if kernel.has("anon-mthp") else largest - 1, -1)
    return [order for order in orders if _order_enabled(vma, order)]


def _order_enabled(vma: VmArea, order: int) -> bool:
    """What hugepages-SIZE/enabled says of a vma."""
    machine = vma.vm_mm.machine
    setting = "inherit" if order == machine.kernel.geometry.PMD_ORDER else "never"
    if machine.kernel.has("anon-mthp"):
        setting = machine.thp_sizes or setting
    if setting == "inherit":
        setting = machine.thp
    return setting == "always" or (setting == "madvise" and bool(vma.vm_flags & VM_HUGEPAGE))


def vmf_insert_pfn_pmd(vmf: VmFault, pfn: int, write: bool) -> int:
    """Insert a PMD leaf for `pfn` (base pages) at the PMD-aligned fault address; return a VM_FAULT code."""
    vma = vmf.vma
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    address = vmf.address & -kernel.geometry.size("pmd")
    machine.trace.emit(Call("vmf_insert_pfn_pmd", vmf.address))
    bug_on_cow(vma, "vmf_insert_pfn_pmd")
    if not vma.vm_start <= address < vma.vm_end:
        return VM_FAULT_SIGBUS
    assert vmf.pmd is not None
    table, index = vmf.pmd
    old = table[index]
    if not ops.pmd_none(old):
        if write and ops.pmd_pfn(old) != pfn:  # a driver that maps two things at one address (patch 2 of the series)
            machine.warn_once("mm/huge_memory.c insert_pfn_pmd")
        elif write:
            table[index] = ops.pmdp_set_access_flags(old, _pmd_made_writable(vma, ops.pmd_mkyoung(old)))
        return VM_FAULT_NOPAGE
    entry = ops.pmd_mkspecial(ops.pmd_mkhuge(ops.pfn_pmd(pfn, setup_cachemode(vma, pfn))))
    if write:
        entry = _pmd_made_writable(vma, ops.pmd_mkyoung(entry))
    if ops.arch_needs_pgtable_deposit():
        vma.vm_mm.tables.deposit(address)
    table[index] = entry
    machine.trace.emit(Install("pmd", address, pfn, entry))
    return VM_FAULT_NOPAGE


def _pmd_made_writable(vma: VmArea, pmd: int) -> int:
    """maybe_pmd_mkwrite(pmd_mkdirty(pmd))."""
    ops = vma.vm_mm.kernel.ops
    pmd = ops.pmd_mkdirty(pmd)
    return ops.pmd_mkwrite(pmd, vma.vm_flags) if vma.vm_flags & VM_WRITE else pmd


def vmf_insert_pfn_pud(vmf: VmFault, pfn: int, write: bool) -> int:
    """Insert a PUD leaf for `pfn` (base pages) at the PUD-aligned fault address; return a VM_FAULT code."""
    vma = vmf.vma
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    address = vmf.address & -kernel.geometry.size("pud")
    machine.trace.emit(Call("vmf_insert_pfn_pud", vmf.address))
    bug_on_cow(vma, "vmf_insert_pfn_pud")
    if not vma.vm_start <= address < vma.vm_end:
        return VM_FAULT_SIGBUS
    assert vmf.pud is not None
    table, index = vmf.pud
    old = table[index]
    if not ops.pud_none(old):
        if write and ops.pud_pfn(old) != pfn:
            machine.warn_once("mm/huge_memory.c insert_pfn_pud")
        elif write:
            table[index] = _pud_made_writable(vma, ops.pud_mkyoung(old))
        return VM_FAULT_NOPAGE
    prot = setup_cachemode(vma, pfn)
    if not kernel.has("pud-insert-cachemode"):  # what was looked up is dropped (FINDINGS F13)
        prot = vma.vm_page_prot
    entry = ops.pud_mkspecial(ops.pud_mkhuge(ops.pfn_pud(pfn, prot)))
    if write:
        entry = _pud_made_writable(vma, ops.pud_mkyoung(entry))
    table[index] = entry
    machine.trace.emit(Install("pud", address, pfn, entry))
    return VM_FAULT_NOPAGE


def _pud_made_writable(vma: VmArea, pud: int) -> int:
    """maybe_pud_mkwrite(pud_mkdirty(pud))."""
    ops = vma.vm_mm.kernel.ops
    pud = ops.pud_mkdirty(pud)
    return ops.pud_mkwrite(pud) if vma.vm_flags & VM_WRITE else pud


def huge_pmd_set_accessed(vmf: VmFault) -> None:
    """Mark a PMD leaf accessed, and dirty on a write: the fault of a CPU that does not do it itself (RULES 7)."""
    vma = vmf.vma
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    machine.trace.emit(Call("huge_pmd_set_accessed", vmf.address))
    assert vmf.pmd is not None
    table, index = vmf.pmd
    refuse_anonymous_huge_page(vma, table[index])
    entry = ops.pmd_mkyoung(table[index])
    if vmf.write:
        entry = ops.pmd_mkdirty(entry)
    table[index] = ops.pmdp_set_access_flags(table[index], entry)


def huge_pud_set_accessed(vmf: VmFault) -> None:
    """Mark a PUD leaf accessed, and dirty on a write."""
    vma = vmf.vma
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    machine.trace.emit(Call("huge_pud_set_accessed", vmf.address))
    assert vmf.pud is not None
    table, index = vmf.pud
    entry = ops.pud_mkyoung(table[index])
    table[index] = ops.pud_mkdirty(entry) if vmf.write else entry


def is_anonymous_huge_page(vma: VmArea, entry: int) -> bool:
    """Tell whether a PMD leaf maps memory (`do_huge_pmd_anonymous_page`). A pfnmap's leaf that is left over in such a
    vma (FINDINGS F3) maps none."""
    machine = vma.vm_mm.machine
    return (
        vma.is_anonymous and machine.kernel.ops.pmd_pfn(entry) << machine.kernel.geometry.PAGE_SHIFT in machine.phys.ram
    )


def refuse_anonymous_huge_page(vma: VmArea, entry: int) -> None:
    """Refuse what is not modelled of a PMD leaf of memory: it is mapped, pinned, protected, split, zapped, no more
    (tests/data/recordings/huge-*)."""
    if is_anonymous_huge_page(vma, entry):
        raise Refused("anonymous huge page", "what is done to it once it is mapped")


def anonymous_wp_huge_pmd(vmf: VmFault) -> int:
    """do_huge_pmd_wp_page: a write to a read-only leaf of the process's own makes it writable in place."""
    vma = vmf.vma
    kernel = vma.vm_mm.machine.kernel
    ops = kernel.ops
    assert vmf.pmd is not None
    vma.vm_mm.machine.trace.emit(Call("do_huge_pmd_wp_page", vmf.address))
    table, index = vmf.pmd
    if not vma.vm_mm.machine.phys.ram[ops.pmd_pfn(table[index]) << kernel.geometry.PAGE_SHIFT].exclusive:
        refuse_anonymous_huge_page(vma, table[index])
    if vmf.write:
        entry = ops.pmd_mkdirty(ops.pmd_mkyoung(table[index]))
        table[index] = ops.pmdp_set_access_flags(table[index], ops.pmd_mkwrite(entry, vma.vm_flags))
    return 0


def _refill(vma: VmArea, slot: Slot, address: int) -> None:
    """Put PTEs of the same pages in the place of a PMD leaf of memory, in the table that was kept for them: writable,
    old, dirty and soft-dirty as that was (__split_huge_pmd_locked).

    6.1.192 makes them clean, which is refused: that ended with 6.4, and so do kernels without `per-vma-lock-faults`.
    """
    mm = vma.vm_mm
    if not mm.kernel.has("per-vma-lock-faults"):
        raise Refused("anonymous huge page", "its split before 6.4")
    ops = mm.kernel.ops
    leaf = slot.entry
    pfn = ops.pmd_pfn(leaf)
    table = mm.tables.populate_deposited(slot, address)
    for n in range(len(table)):
        entry = ops.pfn_pte(pfn + n, vma.vm_page_prot)
        if ops.pmd_write(leaf):
            entry = ops.pte_mkwrite(entry, vma.vm_flags)
        if not ops.pmd_young(leaf):
            entry = ops.pte_mkold(entry)
        if ops.pmd_dirty(leaf):
            entry = ops.pte_mkdirty(entry)
        table[n] = entry
    contpte_fold(mm, table, 0, len(table))


def split_huge_pmd(vma: VmArea, slot: Slot, address: int) -> None:
    """__split_huge_pmd: a pfnmap's PMD leaf is dropped, one of memory becomes PTEs; any other entry is left alone."""
    mm = vma.vm_mm
    machine = mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    machine.trace.emit(Call("__split_huge_pmd", address))
    size = kernel.geometry.size("pmd")
    address &= -size
    mmu_notifier_invalidate_range(mm, address, address + size)
    entry = slot.entry
    if not ops.pmd_trans_huge(entry) and not ops.pmd_devmap(entry):
        return
    machine.trace.emit(Split("pmd", address))
    if is_anonymous_huge_page(vma, entry):
        _refill(vma, slot, address)
        return
    slot.table[slot.index] = kernel.arch.empty("pmd")
    if ops.arch_needs_pgtable_deposit():
        mm.tables.withdraw(address)


def split_huge_pud(vma: VmArea, slot: Slot, address: int) -> None:
    """__split_huge_pud: a PUD leaf is dropped; any other entry is left alone."""
    mm = vma.vm_mm
    machine = mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    machine.trace.emit(Call("__split_huge_pud", address))
    size = kernel.geometry.size("pud")
    address &= -size
    mmu_notifier_invalidate_range(mm, address, address + size)
    entry = slot.entry
    if not ops.pud_trans_huge(entry) and not ops.pud_devmap(entry):
        return
    machine.trace.emit(Split("pud", address))
    slot.table[slot.index] = kernel.arch.empty("pud")


def vma_adjust_trans_huge(vma: VmArea, address: int) -> None:
    """Split the PMD leaf that a vma is about to be cut through at `address` (RULES 15 to 17).

    The kernel finds the PMD by its upper entries being present, and takes a PUD leaf for a table: FINDINGS F1.
    """
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    size = kernel.geometry.size("pmd")
    start = address & -size
    if not kernel.config.enabled("TRANSPARENT_HUGEPAGE") or start == address:
        return
    if start < vma.vm_start or start + size > vma.vm_end:
        return
    tables = vma.vm_mm.tables
    pud = tables.pud_slot(address)
    if pud is None or not kernel.ops.pud_present(pud.entry):
        return
    if kernel.ops.pud_leaf(pud.entry):
        machine.trace.emit(Call("__split_huge_pmd", address))
        stack = ("_raw_spin_lock", "__split_huge_pmd", "vma_adjust_trans_huge", "__split_vma")
        raise KernelDied(Oops("_raw_spin_lock", stack, "F1"))
    split_huge_pmd(vma, tables.pmd_offset(pud, address), address)


def change_huge_pmd(vma: VmArea, slot: Slot, address: int, newprot: int, try_writable: bool) -> None:
    """Give a PMD leaf a new protection (mprotect of all it maps).

    `try_writable`: the vma tracks soft-dirty (MM_CP_TRY_CHANGE_WRITABLE); a leaf that is dirty and soft-dirty already
    need not fault on the next write (can_change_pmd_writable).
    """
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    machine.trace.emit(Call("change_huge_pmd", address))
    entry = ops.pmd_modify(slot.entry, newprot)
    if is_anonymous_huge_page(vma, slot.entry):
        page = machine.phys.ram[ops.pmd_pfn(slot.entry) << kernel.geometry.PAGE_SHIFT]
        upgraded = try_writable and page.exclusive and kernel.has("mprotect-clean-exclusive")
    else:
        upgraded = try_writable and bool(ops.pmd_dirty(entry) and ops.pmd_soft_dirty(entry))
    if upgraded and not ops.pmd_write(entry):
        entry = ops.pmd_mkwrite(entry, vma.vm_flags)
    slot.table[slot.index] = entry


def change_huge_pud(vma: VmArea, slot: Slot, address: int, newprot: int) -> None:
    """Give a PUD leaf a new protection (mprotect of all it maps)."""
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    machine.trace.emit(Call("change_huge_pud", address))
    slot.table[slot.index] = kernel.ops.pud_modify(slot.entry, newprot)


def copy_huge_pmd(dst: MmStruct, dst_slot: Slot, vma: VmArea, src_slot: Slot, address: int) -> None:
    """fork: copy a special PMD leaf, accessed cleared, dirty and write bit kept (RULES 11, 20); another leaf of a
    file is not copied, the child faults it in."""
    machine = dst.machine
    kernel = machine.kernel
    ops = kernel.ops
    entry = src_slot.entry
    refuse_anonymous_huge_page(vma, entry)
    machine.trace.emit(Call("copy_huge_pmd", address))
    if not (ops.pmd_present(entry) and ops.pmd_special(entry)):
        return
    if is_cow_mapping(vma.vm_flags) and ops.pmd_write(entry):
        machine.warn_once("mm/huge_memory.c copy_huge_pmd")
    if ops.arch_needs_pgtable_deposit():
        dst.tables.deposit(address)
    dst_slot.table[dst_slot.index] = ops.pmd_mkold(entry)


def copy_huge_pud(dst: MmStruct, dst_slot: Slot, vma: VmArea, src_slot: Slot, address: int) -> None:
    """fork: copy a PUD leaf, accessed cleared; both copies lose the write bit only in a COW mapping."""
    ops = dst.kernel.ops
    dst.machine.trace.emit(Call("copy_huge_pud", address))
    entry = src_slot.entry
    if is_cow_mapping(vma.vm_flags) and ops.pud_write(entry):
        entry = src_slot.table[src_slot.index] = ops.pud_wrprotect(entry)
    dst_slot.table[dst_slot.index] = ops.pud_mkold(entry)


def move_huge_pmd(vma: VmArea, old: Slot, new: Slot, old_address: int, new_address: int) -> bool:
    """mremap: move a PMD leaf to an empty slot, soft-dirty then (RULES 12); False where the slot is taken."""
    mm = vma.vm_mm
    machine = mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    refuse_anonymous_huge_page(vma, old.entry)
    machine.trace.emit(Call("move_huge_pmd", old_address))
    if not ops.pmd_none(new.entry):
        return False
    entry = old.entry
    old.table[old.index] = kernel.arch.empty("pmd")
    if ops.arch_needs_pgtable_deposit():
        mm.tables.withdraw(old_address)
        mm.tables.deposit(new_address)
    if kernel.config.enabled("MEM_SOFT_DIRTY") and ops.pmd_present(entry):
        entry = ops.pmd_mksoft_dirty(entry)
    new.table[new.index] = entry
    return True


def bug_on_cow(vma: VmArea, function: str) -> None:
    """The BUG_ON of the vmf_insert_pfn functions: into a private pfnmap only remap_pfn_range may put PFNs (read)."""
    if vma.vm_flags & (VM_PFNMAP | VM_SHARED | VM_MAYWRITE) == VM_PFNMAP | VM_MAYWRITE:  # is_cow_mapping
        raise KernelDied(Oops(function, (function,)))


def is_cow_mapping(vm_flags: int) -> bool:
    """Tell whether a vma's private pages are copied on write: it may be written and is not shared."""
    return vm_flags & (VM_SHARED | VM_MAYWRITE) == VM_MAYWRITE


def zap_huge_pmd(vma: VmArea, slot: Slot, address: int) -> None:
    """Drop a PMD leaf; `address` is the leaf's."""
    mm = vma.vm_mm
    entry = slot.entry
    anonymous = is_anonymous_huge_page(vma, entry)
    mm.machine.trace.emit(Call("zap_huge_pmd", address))
    slot.table[slot.index] = mm.kernel.arch.empty("pmd")
    if anonymous:
        geometry = mm.kernel.geometry
        first = mm.kernel.ops.pmd_pfn(entry) << geometry.PAGE_SHIFT
        for page in range(first, first + geometry.size("pmd"), geometry.PAGE_SIZE):
            mm.machine.phys.unmap_page(page)
    if anonymous or mm.kernel.ops.arch_needs_pgtable_deposit():
        mm.tables.withdraw(address)


def zap_huge_pud(vma: VmArea, slot: Slot, address: int) -> None:
    """Drop a PUD leaf; `address` is the leaf's."""
    mm = vma.vm_mm
    mm.machine.trace.emit(Call("zap_huge_pud", address))
    slot.table[slot.index] = mm.kernel.arch.empty("pud")
