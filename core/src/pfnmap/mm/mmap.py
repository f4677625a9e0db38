"""mmap, munmap, and the splitting and merging of vmas (mm/mmap.c, mm/vma.c).

Addresses, lengths and file offsets are in bytes; errors are negative errnos.
"""

from __future__ import annotations

from errno import EINVAL, ENOMEM, EPERM

from pfnmap.contract.vma import File, MmStruct, VmArea, answered, errno_of
from pfnmap.mm.huge_memory import vma_adjust_trans_huge
from pfnmap.mm.pfnmap_track import vma_pfnmap_track_ctx_put
from pfnmap.mm.pgtable import free_pgtables
from pfnmap.mm.shmem import shmem_zero_setup
from pfnmap.mm.vm_enough_memory import vm_enough_memory
from pfnmap.mm.vma import vm_area_dup, vma_link, vma_unlink
from pfnmap.mm.zap import unmap_single_vma
from pfnmap.trace import Misbehaviour
from pfnmap.vm_flags import (
    VM_ACCESS_FLAGS,
    VM_ACCOUNT,
    VM_EXEC,
    VM_LOCKED,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NORESERVE,
    VM_SEALED,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_SPECIAL,
    VM_WRITE,
)

__all__ = [
    "MMAP_BASE",
    "do_mmap",
    "do_munmap",
    "get_unmapped_area",
    "merge_vmas",
    "page_align",
    "split_vma",
    "unmapped_area_alignment",
    "vma_modify",
    "vma_set_page_prot",
    "vma_soft_dirty_enabled",
    "vma_wants_writenotify",
]

MMAP_BASE = 0x7FFF_F7FF_F000
"""Where the top-down search for a free address starts (bytes) in an otherwise empty process; a real process's base is
random, only page-aligned, and below its libraries. Deliberately not 2M-aligned (CLI.md, policy `kernel`)."""


def unmapped_area_alignment(mm: MmStruct, offset: int, length: int, file: File | None) -> int:
    """Return to what size (bytes) mmap(NULL) makes the address congruent with the file offset: that of a page, or of a
    leaf of which an aligned block lies in the range.

    With `get-mapping-order` (posted, not merged; its cover letter says that the alignment is against the offset) the
    file's driver says which. Else __thp_get_unmapped_area and the test of __get_unmapped_area: 6.12.y aligns lengths
    that are a multiple of the PMD size; later releases (`no-thp-align-without-get-unmapped-area`) and those before
    huge pfnmaps do not (FINDINGS F7, null.* records; nothing between 6.1 and 6.12 was recorded).
    """
    kernel = mm.kernel
    page, pmd = kernel.geometry.PAGE_SIZE, kernel.geometry.size("pmd")
    if file is not None and file.f_op.get_mapping_order is not None and kernel.has("get-mapping-order"):
        order = file.f_op.get_mapping_order
        size = page << answered(order, order(file, offset, length))
        if size > page and -(-offset // size) * size + size <= offset + length:
            return size
    aligns = (
        kernel.has("huge-pfnmap")
        and kernel.config.enabled("TRANSPARENT_HUGEPAGE")
        and not kernel.has("no-thp-align-without-get-unmapped-area")
    )
    first_block = -(-offset // pmd) * pmd
    return pmd if aligns and length % pmd == 0 and offset + length - first_block >= pmd else page


def get_unmapped_area(mm: MmStruct, offset: int, length: int, base: int | None = None, file: File | None = None) -> int:
    """Return the address that mmap(NULL) chooses, top-down below `base` (default MMAP_BASE), or -ENOMEM."""
    geometry = mm.kernel.geometry
    base = min(MMAP_BASE, geometry.stack_top - geometry.PAGE_SIZE) if base is None else base
    base &= -geometry.PAGE_SIZE
    align = unmapped_area_alignment(mm, offset, length, file)
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
    noreserve: bool = False,
    chosen: int | None = None,
) -> int:
    """Map `length` bytes of a file (None: anonymous memory) and return the address, or a negative errno.

    `vm_flags`: the VM_READ, VM_WRITE, VM_EXEC that the protection asks for, and VM_LOCKED. `address` is a hint unless
    `fixed` (0: none).
    `chosen`: the address that the real kernel chose, where its choice depends on mappings the model does not have; its
    alignment must still be what the release's rule gives, else the model's own choice is made.
    """
    kernel = mm.kernel
    page = kernel.geometry.PAGE_SIZE
    if not length or offset % page:
        return -EINVAL
    length = page_align(mm, length)
    if not length or length > kernel.geometry.task_size:
        return -ENOMEM
    if fixed:
        if address % page:
            return -EINVAL
        if address + length > kernel.geometry.task_size:
            return -ENOMEM
    else:
        address = _choose(mm, file, address, length, offset if file else 0, chosen)
        if address < 0:
            return address
    mm.tables.reach(address + length)
    flags = vm_flags | kernel.ops.arch_calc_vm_prot_bits(vm_flags & VM_ACCESS_FLAGS) | mm.def_flags
    flags |= VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
    if shared:
        flags |= VM_SHARED | VM_MAYSHARE
    if noreserve:
        flags |= VM_NORESERVE
    if flags & (VM_NORESERVE | VM_SHARED | VM_WRITE) == VM_WRITE:  # accountable_mapping()
        flags |= VM_ACCOUNT
    if file is not None and file.f_op.noexec:
        if vm_flags & VM_EXEC:
            return -EPERM
        flags &= ~VM_MAYEXEC
    return _mmap_region(mm, file, address, length, flags, offset)


def _choose(mm: MmStruct, file: File | None, hint: int, length: int, offset: int, chosen: int | None) -> int:
    page = mm.kernel.geometry.PAGE_SIZE
    if hint:
        hint &= -page
        if hint + length <= mm.kernel.geometry.task_size and not mm.intersecting(hint, hint + length):
            return hint
    if chosen is not None and (chosen - offset) % unmapped_area_alignment(mm, offset, length, file) == 0:
        end = chosen + length
        if end <= mm.kernel.geometry.task_size and not mm.intersecting(chosen, end):
            return chosen
    return get_unmapped_area(mm, offset, length, file=file)


def _mmap_region(mm: MmStruct, file: File | None, address: int, length: int, flags: int, offset: int) -> int:
    kernel = mm.kernel
    shift = kernel.geometry.PAGE_SHIFT
    end = address + length
    gathers_first = kernel.has("mmap-gathers-first")
    old = mm.intersecting(address, end)
    # What is refused from here on leaves the old mapping split (`unpinned.rejected_fixed.pud.private`), and what the
    # driver refuses then has lost its caller the old mapping (FINDINGS F25).
    if old and (error := _gather_munmap(mm, address, end) if gathers_first else do_munmap(mm, address, length)):
        return error
    if flags & VM_ACCOUNT:
        accounted = sum(v.size for v in mm.intersecting(address, end) if v.vm_flags & VM_ACCOUNT)
        if not vm_enough_memory(mm.machine, (length - accounted) >> shift):
            return -ENOMEM
    if old and gathers_first and (error := do_munmap(mm, address, length)):
        return error
    vma = VmArea(mm, address, address + length, flags, offset >> shift, file)
    vma.vm_page_prot = kernel.ops.vm_get_page_prot(flags)
    if file is None and flags & VM_SHARED:
        vma.vm_pgoff = 0
        if error := shmem_zero_setup(vma, bool(flags & VM_NORESERVE)):
            return error
    elif file is None:
        vma.vm_pgoff = address >> shift
    else:
        error = errno_of(file.f_op.mmap, file.f_op.mmap(file, vma))
        if error and old:
            mm.machine.trace.emit(Misbehaviour("F25", "mmap fails, and has removed what was mapped there"))
        if error:
            vma_pfnmap_track_ctx_put(vma)
            return error
    if vma.vm_flags & VM_SPECIAL:
        vma.vm_flags &= ~VM_LOCKED
    if kernel.config.enabled("MEM_SOFT_DIRTY"):
        vma.vm_flags |= VM_SOFTDIRTY
    vma_set_page_prot(vma)
    vma_link(vma)
    merge_vmas(mm, vma)
    return address


def page_align(mm: MmStruct, length: int) -> int:
    """PAGE_ALIGN: round bytes up to pages, in 64 bits: a length next to 2**64 becomes 0."""
    page = mm.kernel.geometry.PAGE_SIZE
    return (length + page - 1) % (1 << 64) & -page


def do_munmap(mm: MmStruct, address: int, length: int) -> int:
    """Unmap [address, address + length) (bytes): vmas, entries, and the tables nobody else needs. Returns 0 or -errno.

    Which half of a split is the new vma matters only to a driver with an `open` op; the order is that of 6.1, whose
    vfio-pci has one (RULES, "6.1 against 6.12").
    """
    geometry = mm.kernel.geometry
    length = page_align(mm, length)
    if address % geometry.PAGE_SIZE or not length or address + length > geometry.task_size:
        return -EINVAL
    end = address + length
    if not mm.intersecting(address, end):
        return 0
    error = _gather_munmap(mm, address, end)
    if error:
        return error
    vmas = mm.intersecting(address, end)
    before, after = mm.previous(vmas[0].vm_start), mm.find_vma(vmas[-1].vm_end)
    for vma in vmas:
        vma_unlink(vma)
    for vma in vmas:
        unmap_single_vma(vma, vma.vm_start, vma.vm_end, tables_go=True)
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


def _gather_munmap(mm: MmStruct, address: int, end: int) -> int:
    """vms_gather_munmap_vmas: split the vmas that reach out of [address, end); -EPERM for a sealed one."""
    vmas = mm.intersecting(address, end)
    if vmas[0].vm_start < address:
        if vmas[0].vm_flags & VM_SEALED:
            return -EPERM
        split_vma(mm, vmas[0], address, new_below=False)
    for vma in mm.intersecting(address, end):
        if vma.vm_flags & VM_SEALED:  # what was split before it stays split
            return -EPERM
        if vma.vm_end > end:
            split_vma(mm, vma, end, new_below=True)
    return 0


def split_vma(mm: MmStruct, vma: VmArea, address: int, *, new_below: bool) -> VmArea:
    """Split a vma at `address` and return the new one (__split_vma); the old one keeps the other half.

    Huge leaves that the cut goes through are split on the way (vma_adjust_trans_huge).
    """
    pages = (address - vma.vm_start) >> mm.kernel.geometry.PAGE_SHIFT
    place = {"vm_end": address} if new_below else {"vm_start": address, "vm_pgoff": vma.vm_pgoff + pages}
    new = vm_area_dup(vma, **place)
    if new.vm_ops is not None and new.vm_ops.open is not None:
        new.vm_ops.open(new)
    vma_adjust_trans_huge(vma, address)
    if new_below:
        mm.resize(vma, address, vma.vm_end)
    else:
        mm.resize(vma, vma.vm_start, address)
    vma_link(new)
    return new


def vma_modify(mm: MmStruct, vma: VmArea, start: int, end: int) -> VmArea:
    """Cut [start, end) out of a vma, as its flags or policy are about to change, and return what covers it."""
    if start > vma.vm_start:
        split_vma(mm, vma, start, new_below=True)
    if end < vma.vm_end:
        split_vma(mm, vma, end, new_below=False)
    return vma


def merge_vmas(mm: MmStruct, vma: VmArea) -> VmArea:
    """Merge a vma with its neighbours where they are alike (vma_merge), and return what covers it then.

    A pfnmap never merges (VM_SPECIAL); private anonymous neighbours do (RULES 25).
    """
    before = mm.previous(vma.vm_start)
    if before is not None and _mergeable(before, vma) and _anon_mergeable(vma, before):
        vma = _merge(mm, before, vma)
    after = mm.find_vma(vma.vm_end)
    if after is not None and _mergeable(vma, after) and _anon_mergeable(vma, after):
        vma = _merge(mm, vma, after)
    return vma


def _mergeable(below: VmArea, above: VmArea) -> bool:
    return (
        below.vm_end == above.vm_start
        and not (below.vm_flags | above.vm_flags) & VM_SPECIAL
        and not (below.vm_flags ^ above.vm_flags) & ~VM_SOFTDIRTY
        and below.vm_file is above.vm_file
        and below.vm_pgoff + (below.size >> below.vm_mm.kernel.geometry.PAGE_SHIFT) == above.vm_pgoff
        and below.vm_policy is above.vm_policy
    )


def _anon_mergeable(piece: VmArea, neighbour: VmArea) -> bool:
    """is_mergeable_anon_vma: whether a vma that changed may go into a neighbour, as far as their pages are concerned.

    A vma that comes from a fork takes no other; nor, until `vma-merge-unfaulted`, does one without pages take one with.
    """
    if piece.anon_vma is neighbour.anon_vma:
        return True
    if piece.anon_vma is None:
        return neighbour.anon_vma is not None and neighbour.anon_vma.singular
    merges = piece.vm_mm.kernel.has("vma-merge-unfaulted")
    return neighbour.anon_vma is None and merges and piece.anon_vma.singular


def _merge(mm: MmStruct, below: VmArea, above: VmArea) -> VmArea:
    vma_unlink(above)
    mm.resize(below, below.vm_start, above.vm_end)
    below.anon_vma = below.anon_vma or above.anon_vma
    below.vm_flags |= above.vm_flags & VM_SOFTDIRTY
    return below


def vma_soft_dirty_enabled(vma: VmArea) -> bool:
    """Tell whether writes to a vma are tracked for soft-dirty: since clear_refs cleared its VM_SOFTDIRTY."""
    return vma.vm_mm.kernel.config.enabled("MEM_SOFT_DIRTY") and not vma.vm_flags & VM_SOFTDIRTY


def vma_wants_writenotify(vma: VmArea, page_prot: int) -> bool:
    """Tell whether the first write to a page of a shared writable vma has to fault (mm/vma.c).

    The drivers modelled have no pfn_mkwrite, and their files no dirty accounting. sysfs has a page_mkwrite (the
    res.mprotect record).
    """
    shared_writable = VM_SHARED | VM_WRITE
    if vma.vm_flags & shared_writable != shared_writable:
        return False
    if vma.vm_ops is not None and vma.vm_ops.page_mkwrite is not None:
        return True
    ops = vma.vm_mm.kernel.ops
    if page_prot != ops.pgprot_modify(page_prot, ops.vm_get_page_prot(vma.vm_flags)):
        return False
    return vma_soft_dirty_enabled(vma)


def vma_set_page_prot(vma: VmArea) -> None:
    """Take the protection that a vma's flags ask for, with the caching it has; read-only where writes are notified."""
    ops = vma.vm_mm.kernel.ops
    prot = ops.pgprot_modify(vma.vm_page_prot, ops.vm_get_page_prot(vma.vm_flags))
    if vma_wants_writenotify(vma, prot):
        prot = ops.pgprot_modify(prot, ops.vm_get_page_prot(vma.vm_flags & ~VM_SHARED))
    vma.vm_page_prot = prot
