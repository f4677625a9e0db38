"""mmap and munmap (mm/mmap.c, mm/vma.c). Addresses, lengths and file offsets are in bytes; errors are negative errnos."""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOMEM, EPERM
from typing import TYPE_CHECKING

from pfnmap.errors import Refused
from pfnmap.mm.memory import unmap_page_range
from pfnmap.mm.pgtable import free_pgtables
from pfnmap.mm.vma import VmArea
from pfnmap.vm_flags import (
    VM_EXEC,
    VM_HUGEPAGE,
    VM_LOCKED,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_PFNMAP,
    VM_SHARED,
    VM_SOFTDIRTY,
)

if TYPE_CHECKING:
    from pfnmap.mm.vma import File, MmStruct

__all__ = ["MMAP_BASE", "do_mmap", "do_munmap", "get_unmapped_area", "madvise_hugepage", "thp_alignment"]

MMAP_BASE = 0x7FFF_F7FF_F000
"""Where the top-down search for a free address starts (bytes) in an otherwise empty process; a real process's base is
random, only page-aligned, and below its libraries. Deliberately not 2M-aligned (CLI.md, policy `kernel`)."""


def thp_alignment(mm: MmStruct, offset: int, length: int) -> int:
    """Return to what size (bytes) mmap(NULL) makes the address congruent with the file offset: the PMD size or a page.

    __thp_get_unmapped_area and the test of __get_unmapped_area: 6.12.y aligns lengths that are a multiple of the PMD size
    if at least one whole block fits, later releases (`no-thp-align-without-get-unmapped-area`) and those before 6.7 do
    not (FINDINGS F7, null.* records).
    """
    kernel = mm.kernel
    page, pmd = kernel.geometry.PAGE_SIZE, kernel.geometry.size("pmd")
    aligns = (
        kernel.has("huge-pfnmap")
        and kernel.config.enabled("TRANSPARENT_HUGEPAGE")
        and not kernel.has("no-thp-align-without-get-unmapped-area")
    )
    first_block = -(-offset // pmd) * pmd
    return pmd if aligns and length % pmd == 0 and offset + length - first_block >= pmd else page


def get_unmapped_area(mm: MmStruct, offset: int, length: int, base: int | None = None) -> int:
    """Return the address that mmap(NULL) chooses, top-down below `base` (default MMAP_BASE), or -ENOMEM."""
    geometry = mm.kernel.geometry
    base = min(MMAP_BASE, geometry.task_size - geometry.PAGE_SIZE) if base is None else base
    base &= -geometry.PAGE_SIZE
    align = thp_alignment(mm, offset, length)
    if align == geometry.PAGE_SIZE:
        return _unmapped_area_topdown(mm, length, base)
    padded = _unmapped_area_topdown(mm, length + align, base)
    if padded < 0:
        return _unmapped_area_topdown(mm, length, base)
    shift = (offset - padded) % align
    return padded + (shift or align)


def _unmapped_area_topdown(mm: MmStruct, length: int, base: int) -> int:
    high = base
    for vma in reversed(list(mm)):
        if vma.vm_start >= high:
            continue
        if vma.vm_end + length <= high:
            break
        high = vma.vm_start
    return high - length if high - length >= mm.kernel.geometry.PAGE_SIZE else -ENOMEM


def do_mmap(
    mm: MmStruct,
    file: File | None,
    address: int,
    length: int,
    vm_flags: int,
    offset: int,
    *,
    fixed: bool,
    shared: bool,
    noreplace: bool = False,
    noreserve: bool = False,
    chosen: int | None = None,
) -> int:
    """Map `length` bytes of a file (None: anonymous memory) and return the address, or a negative errno.

    `vm_flags`: the VM_READ, VM_WRITE, VM_EXEC that the protection asks for. `address` is a hint unless `fixed` (0: none).
    `chosen`: the address that the real kernel chose, where its choice depends on mappings the model does not have; its
    alignment must still be what the release's rule gives, else the model's own choice is made.
    """
    kernel = mm.kernel
    page = kernel.geometry.PAGE_SIZE
    if not length:
        return -EINVAL
    length = -(-length // page) * page
    if offset % page or offset < 0:
        return -EINVAL
    if length > kernel.geometry.task_size:
        return -ENOMEM
    if fixed:
        if address % page:
            return -EINVAL
        if address + length > kernel.geometry.task_size:
            return -ENOMEM
        if noreplace and mm.intersecting(address, address + length):
            return -EEXIST
    else:
        address = _choose(mm, address, length, offset if file else 0, chosen)
        if address < 0:
            return address
    flags = vm_flags | mm.def_flags | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
    if shared:
        flags |= VM_SHARED | VM_MAYSHARE
    if noreserve:
        flags |= VM_NORESERVE
    if file is not None and kernel.has(
        "vfio-mmap-noexec"
    ):  # path_noexec(): the file system allows no PROT_EXEC
        if vm_flags & VM_EXEC:
            return -EPERM
        flags &= ~VM_MAYEXEC
    return _mmap_region(mm, file, address, length, flags, offset)


def _choose(mm: MmStruct, hint: int, length: int, offset: int, chosen: int | None) -> int:
    page = mm.kernel.geometry.PAGE_SIZE
    if hint:
        hint &= -page
        if hint + length <= mm.kernel.geometry.task_size and not mm.intersecting(hint, hint + length):
            return hint
    if chosen is not None and (chosen - offset) % thp_alignment(mm, offset, length) == 0:
        return chosen
    return get_unmapped_area(mm, offset, length)


def _mmap_region(mm: MmStruct, file: File | None, address: int, length: int, flags: int, offset: int) -> int:
    kernel = mm.kernel
    if mm.intersecting(address, address + length):
        # A driver that then refuses has lost its caller the old mapping (FINDINGS F25).
        error = do_munmap(mm, address, length)
        if error:
            return error
    vma = VmArea(mm, address, address + length, flags, offset >> kernel.geometry.PAGE_SHIFT, file)
    if file is None:
        raise Refused("mmap", "anonymous memory")
    vma.set_page_prot()
    error = file.driver.mmap(file, vma)
    if error:
        return error
    if vma.vm_flags & VM_PFNMAP:
        vma.vm_flags &= ~VM_LOCKED
    if kernel.config.enabled("MEM_SOFT_DIRTY"):
        vma.vm_flags |= VM_SOFTDIRTY
    mm.insert(vma)
    return address


def do_munmap(mm: MmStruct, address: int, length: int) -> int:
    """Unmap [address, address + length) (bytes): vmas, entries, and the tables nobody else needs. Returns 0 or -errno."""
    page = mm.kernel.geometry.PAGE_SIZE
    if address % page or not length or address + length > mm.kernel.geometry.task_size:
        return -EINVAL
    end = address + -(-length // page) * page
    vmas = mm.intersecting(address, end)
    if not vmas:
        return 0
    if vmas[0].vm_start < address or vmas[-1].vm_end > end:
        raise Refused("munmap", "partial")
    before, after = mm.previous(vmas[0].vm_start), mm.find_vma(vmas[-1].vm_end)
    for vma in vmas:
        mm.remove(vma)
    for vma in vmas:
        unmap_page_range(vma, vma.vm_start, vma.vm_end)
    free_pgtables(
        mm,
        [(vma.vm_start, vma.vm_end) for vma in vmas],
        before.vm_end if before else 0,
        after.vm_start if after else 0,
    )
    for vma in vmas:
        if vma.vm_ops is not None and vma.vm_ops.close is not None:
            vma.vm_ops.close(vma)
    return 0


def madvise_hugepage(mm: MmStruct, address: int, length: int, advice: str) -> int:
    """MADV_HUGEPAGE and MADV_NOHUGEPAGE of whole vmas (hugepage_madvise, mm/khugepaged.c); 0 or -errno."""
    page = mm.kernel.geometry.PAGE_SIZE
    if address % page:
        return -EINVAL
    end = address + -(-length // page) * page
    if end == address:
        return 0
    on, off = (VM_HUGEPAGE, VM_NOHUGEPAGE) if advice == "HUGEPAGE" else (VM_NOHUGEPAGE, VM_HUGEPAGE)
    reached = address
    hole = False
    for vma in mm.intersecting(address, end):
        if vma.vm_start < address or vma.vm_end > end:
            raise Refused("madvise", "partial")
        hole = hole or vma.vm_start > reached
        vma.vm_flags = (vma.vm_flags & ~off) | on
        reached = vma.vm_end
    return -ENOMEM if hole or reached < end else 0
