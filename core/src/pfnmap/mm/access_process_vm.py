"""One process reads or writes another's memory: access_process_vm and generic_access_phys.

Source: mm/memory.c of 6.12.117 and 6.1.192 (__access_remote_vm, generic_access_phys). Which drivers' vmas can be
reached at all is up to their `.access`: vfio-pci has none, so its BARs answer EIO (gup.*, ptrace.* records).
generic_access_phys is pinned by the res.access_* records of 6.12.117. A file of its own: memory.c is long in the
kernel too.
"""

from __future__ import annotations

from errno import EINVAL, ENOMEM

from pfnmap.contract.machine import FOLL_WRITE
from pfnmap.contract.vma import MmStruct, VmArea
from pfnmap.mm.follow_pfnmap import follow_pfnmap, follow_pte
from pfnmap.mm.gup import get_user_page_remote, put_pages
from pfnmap.mm.ioremap import ioremap_prot, iounmap
from pfnmap.mm.locking import mmap_lock
from pfnmap.trace import Call, Misbehaviour
from pfnmap.vm_flags import VM_IO, VM_PFNMAP

__all__ = ["access_process_vm", "generic_access_phys"]


def access_process_vm(mm: MmStruct, address: int, length: int, gup_flags: int) -> int:
    """Read (or, with FOLL_WRITE, write) `length` bytes at an address of any process; return how many were moved.

    Pages are pinned one by one; where that fails, the vma's `.access` is tried (CONFIG_HAVE_IOREMAP_PROT).
    """
    kernel = mm.kernel
    page_size = kernel.geometry.PAGE_SIZE
    moved = 0
    with mmap_lock(mm):
        while moved < length:
            page = get_user_page_remote(mm, address, gup_flags)
            if page >= 0:
                count = min(length - moved, page_size - address % page_size)
                put_pages(mm.machine, [page])
            else:
                vma = mm.vma_lookup(address)
                access = vma.vm_ops.access if vma is not None and vma.vm_ops is not None else None
                if vma is None or access is None or not kernel.config.enabled("HAVE_IOREMAP_PROT"):
                    break
                count = access(vma, address, length - moved, bool(gup_flags & FOLL_WRITE))
                if count <= 0:
                    break
            moved += count
            address += count
    return moved


def generic_access_phys(vma: VmArea, address: int, length: int, write: bool) -> int:
    """The `.access` of drivers whose vmas map plain device memory: map it for the kernel and copy.

    The entry is looked up, the memory mapped with the entry's protection (`ioremap_prot`), and the entry looked up
    once more: if protection, address or writability changed meanwhile, all is done again. Returns how much was moved,
    -EINVAL where nothing is mapped or a write meets a read-only entry, -ENOMEM where the memory cannot be mapped.
    Before `generic-access-phys-page` what one look-up found serves for all `length` bytes, also past the mapping's end
    (res.access_uc); since then for what is in its page.
    """
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    machine.trace.emit(Call("generic_access_phys", address))
    look = _look_up if kernel.has("huge-pfnmap") else _look_up_pte
    page = kernel.geometry.PAGE_SIZE
    if kernel.has("generic-access-phys-page"):
        length = min(length, page - address % page)
    while True:
        first = look(vma, address)
        if first is None:
            return -EINVAL
        prot, pfn, writable = first
        if write and not writable:
            return -EINVAL
        machine.trace.emit(Call("ioremap_prot", address))
        phys = pfn * page + address % page
        if ioremap_prot(machine, phys, length, prot):
            return -ENOMEM
        second = look(vma, address)
        if second == first:
            kernel.ops.memcpy_io(machine, phys, length, write)
        iounmap(machine, phys, length)
        if second is None:
            return -EINVAL
        if second == first:
            if length > vma.vm_end - address:
                machine.trace.emit(Misbehaviour("F30", "the access goes past the end of the mapping"))
            return length


def _look_up(vma: VmArea, address: int) -> tuple[int, int, bool] | None:
    with follow_pfnmap(vma, address) as args:
        return None if args is None else (args.pgprot, args.pfn, args.writable)


def _look_up_pte(vma: VmArea, address: int) -> tuple[int, int, bool] | None:
    if not vma.vm_flags & (VM_IO | VM_PFNMAP):
        return None
    pte = follow_pte(vma, address)
    ops = vma.vm_mm.kernel.ops
    return None if pte is None else (ops.pte_pgprot(pte), ops.pte_pfn(pte), bool(ops.pte_write(pte)))
