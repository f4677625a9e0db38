"""Shared anonymous memory: an unlinked file of tmpfs (mm/shmem.c), and how its pages are faulted in (mm/filemap.c).

`min.shared_anon.*` and `unpinned.anon_cow.shared_anon` show the vma, the entries and that fork copies nothing;
`neighbour.*.shared` show that a read fault maps the pages around it that are there already (fault-around), which pages
are dirty, and what REMOVE and PAGEOUT do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from errno import ENODEV, ENOMEM
from typing import Final

from pfnmap.contract.fault import VM_FAULT_NOPAGE, VM_FAULT_SIGBUS
from pfnmap.contract.kernel import MachineState
from pfnmap.contract.phys import Page
from pfnmap.contract.vma import File, FileOperations, VmArea, VmFault, VmOperations
from pfnmap.mm.vm_enough_memory import vm_enough_memory
from pfnmap.mm.zap import unmap_mapping_range

__all__ = ["Shmem", "shmem_of", "shmem_punch_hole", "shmem_reclaim", "shmem_zero_setup"]

_FAULT_AROUND: Final = 65536


@dataclass(eq=False)
class Shmem:
    """The inode: `size` in pages, and the pages that are there, by page offset (physical addresses)."""

    size: int
    pages: dict[int, int] = field(default_factory=dict)


def shmem_zero_setup(vma: VmArea, noreserve: bool) -> int:
    """Give a vma shared anonymous memory; return 0 or -ENOMEM."""
    machine = vma.vm_mm.machine
    pages = vma.size >> machine.kernel.geometry.PAGE_SHIFT
    if not noreserve and not vm_enough_memory(machine, pages):
        return -ENOMEM
    operations = FileOperations(mmap=lambda file, vma: -ENODEV, path=lambda file: "/dev/zero (deleted)", fsync=True)
    vma.vm_file = File(operations, machine, Shmem(pages))
    vma.vm_ops = VmOperations(fault=_fault, map_pages=_map_pages)
    return 0


def shmem_of(vma: VmArea) -> Shmem | None:
    """Return the inode behind a vma, None where it is no shared anonymous memory."""
    inode = None if vma.vm_file is None else vma.vm_file.private_data
    return inode if isinstance(inode, Shmem) else None


def _fault(vmf: VmFault) -> int:
    """shmem_fault and finish_fault: a page that is not there comes, and is mapped."""
    vma = vmf.vma
    inode = shmem_of(vma)
    assert inode is not None
    pgoff = _linear_page_index(vma, vmf.address)
    if pgoff >= inode.size:
        return VM_FAULT_SIGBUS
    if pgoff not in inode.pages:
        inode.pages[pgoff] = _new_page(vma.vm_mm.machine)
    if vmf.write:  # fault_dirty_shared_page
        vma.vm_mm.machine.phys.ram[inode.pages[pgoff]].dirty = True
    _set_pte(vmf, vmf.address, inode.pages[pgoff])
    return VM_FAULT_NOPAGE


def shmem_punch_hole(vma: VmArea, start: int, end: int) -> int:
    """shmem_fallocate for MADV_REMOVE of [start, end) (bytes): nobody maps the pages any more, and they are gone."""
    inode = shmem_of(vma)
    assert inode is not None
    assert vma.vm_file is not None
    first, last = _linear_page_index(vma, start), _linear_page_index(vma, end)
    shift = vma.vm_mm.kernel.geometry.PAGE_SHIFT
    unmap_mapping_range(vma.vm_file.f_mapping, first << shift, (last - first) << shift)
    for pgoff in [pgoff for pgoff in inode.pages if first <= pgoff < last]:
        _remove(vma, inode, pgoff)
    return 0


def shmem_reclaim(vma: VmArea, address: int, page: Page) -> None:
    """shrink_folio_list of a page that nothing maps any more: without swap, a dirty one has nowhere to go."""
    inode = shmem_of(vma)
    assert inode is not None
    if not page.dirty and not page.pins and page.refs == 1:
        _remove(vma, inode, _linear_page_index(vma, address))


def _remove(vma: VmArea, inode: Shmem, pgoff: int) -> None:
    vma.vm_mm.machine.phys.put_page(inode.pages.pop(pgoff), pin=False)


def _map_pages(vmf: VmFault) -> int:
    """do_fault_around and filemap_map_pages: map what is there around a read fault, within the vma and a PTE table."""
    vma = vmf.vma
    inode = shmem_of(vma)
    assert inode is not None
    geometry = vma.vm_mm.kernel.geometry
    page, table = geometry.PAGE_SIZE, geometry.size("pmd")
    window = max(_FAULT_AROUND, page)
    if window == page:
        return 0
    low = max(vmf.address & -window, vma.vm_start, vmf.address & -table)
    high = min(low + window, vma.vm_end, (vmf.address & -table) + table)
    there = [a for a in range(low, high, page) if _linear_page_index(vma, a) in inode.pages]
    for address in there:
        _set_pte(vmf, address, inode.pages[_linear_page_index(vma, address)])
    return VM_FAULT_NOPAGE if vmf.address in there else 0


def _linear_page_index(vma: VmArea, address: int) -> int:
    return vma.vm_pgoff + ((address - vma.vm_start) >> vma.vm_mm.kernel.geometry.PAGE_SHIFT)


def _new_page(machine: MachineState) -> int:
    """A page that the page cache holds and nothing maps yet."""
    address = machine.phys.alloc_page()
    page = machine.phys.ram[address]
    page.anon = page.exclusive = False
    page.mapcount, page.refs = 0, 1
    return address


def _set_pte(vmf: VmFault, address: int, page: int) -> None:
    """set_pte_range of one page, where there is no entry yet."""
    vma = vmf.vma
    mm = vma.vm_mm
    kernel = mm.kernel
    ops = kernel.ops
    table, index = mm.tables.alloc("pte", address)
    if not ops.pte_none(table[index]):
        return
    entry = ops.pfn_pte(page >> kernel.geometry.PAGE_SHIFT, vma.vm_page_prot)
    if address != vmf.address and kernel.arch.arch_wants_old_prefaulted_pte():
        entry = ops.pte_mkold(entry)
    struct_page = mm.machine.phys.ram[page]
    if vmf.write:
        entry = ops.pte_mkwrite(ops.pte_mkdirty(entry), vma.vm_flags)
    elif kernel.has("set-pte-range-dirty") and struct_page.dirty and ops.pte_write(entry):
        entry = ops.pte_mkdirty(entry)
    table[index] = entry
    struct_page.mapcount += 1
