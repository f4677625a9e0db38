"""mremap (mm/mremap.c). Addresses and lengths in bytes; errors are negative errnos.

With `mremap-6.17` the source is checked before anything is unmapped, and a move without resizing takes several vmas;
before, the destination (and the tail that a shrink gives up) went first. Pinned by the mremap.* and min.mremap.*
records of 6.12.117, 6.16.12 and 7.3.4; the order of the checks is read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from errno import EFAULT, EINVAL, ENOMEM, EPERM

from pfnmap.contract.vma import MmStruct, VmArea
from pfnmap.mm.mmap import do_munmap, get_unmapped_area, merge_vmas, page_align
from pfnmap.mm.move_page_tables import move_page_tables
from pfnmap.mm.vma import vm_area_dup, vma_link
from pfnmap.vm_flags import VM_DONTEXPAND, VM_LOCKED, VM_MAYSHARE, VM_PFNMAP, VM_SEALED, VM_SHARED

__all__ = ["do_mremap"]


@dataclass
class _Remap:
    """vma_remap_struct: [address, address + old_len) becomes new_len bytes, at `new_address` if `fixed`."""

    mm: MmStruct
    address: int
    old_len: int
    new_len: int
    maymove: bool
    fixed: bool
    dontunmap: bool
    new_address: int
    chosen: int | None

    @property
    def implies_new_address(self) -> bool:
        """vrm_implies_new_addr: the mapping moves."""
        return self.fixed or self.dontunmap

    @property
    def overlaps(self) -> bool:
        """vrm_overlaps: source and destination have an address in common."""
        return self.address + self.old_len > self.new_address and self.new_address + self.new_len > self.address


def do_mremap(
    mm: MmStruct,
    address: int,
    old_len: int,
    new_len: int,
    flags: frozenset[str],
    new_address: int = 0,
    chosen: int | None = None,
) -> int:
    """Move or resize [address, address + old_len) and return its address, or -errno.

    `flags`: of MAYMOVE, FIXED, DONTUNMAP. `chosen`: as in `pfnmap.mm.mmap.do_mmap`.
    """
    fixed, dontunmap = "FIXED" in flags, "DONTUNMAP" in flags
    checks_first = mm.kernel.has("mremap-6.17")
    if dontunmap and not checks_first and old_len != new_len:  # as passed, a byte less is not the same (RULES3 5)
        return -EINVAL
    old_len, new_len = page_align(mm, old_len), page_align(mm, new_len)
    remap = _Remap(mm, address, old_len, new_len, "MAYMOVE" in flags, fixed, dontunmap, new_address, chosen)
    if (remap.implies_new_address and not remap.maymove) or (dontunmap and old_len != new_len):
        return -EINVAL
    if address % mm.kernel.geometry.PAGE_SIZE or not new_len:
        return -EINVAL
    if not checks_first:
        return _mremap_unmapping_first(remap)
    if remap.implies_new_address and (_bad_destination(remap) or remap.overlaps):
        return -EINVAL
    if fixed and old_len == new_len:
        return _remap_move(remap)
    return _check_prep_vma(remap) or (_mremap_to(remap) if remap.implies_new_address else _mremap_at(remap))


def _mremap_unmapping_first(remap: _Remap) -> int:
    """mremap before `mremap-6.17`."""
    vma = remap.mm.vma_lookup(remap.address)
    if vma is None:
        return -EFAULT
    if vma.vm_flags & VM_SEALED:
        return -EPERM
    if not remap.implies_new_address:
        return _mremap_at(remap)
    if _bad_destination(remap) or remap.overlaps:
        return -EINVAL
    return _mremap_to(remap)


def _bad_destination(remap: _Remap) -> bool:
    geometry = remap.mm.kernel.geometry
    return bool(remap.new_address % geometry.PAGE_SIZE) or remap.new_address + remap.new_len > geometry.task_size


def _check_prep_vma(remap: _Remap) -> int:
    """check_prep_vma: what forbids a remapping is told before anything is unmapped. Of a shrinking one only what stays
    has to be in the first vma (`min.mremap.fixed_shrink_hole`)."""
    vma = remap.mm.vma_lookup(remap.address)
    if vma is None:
        return -EFAULT
    if vma.vm_flags & VM_SEALED:
        return -EPERM
    if not remap.implies_new_address and remap.new_len <= remap.old_len:
        return 0
    return _may_resize(vma, remap, min(remap.old_len, remap.new_len))


def _may_resize(vma: VmArea, remap: _Remap, within: int) -> int:
    """What a vma allows (vma_to_resize): a pfnmap neither grows nor stays behind, a private mapping is not duplicated;
    `within` bytes have to be in it."""
    if not remap.old_len and not vma.vm_flags & (VM_SHARED | VM_MAYSHARE):
        return -EINVAL
    if remap.dontunmap and vma.vm_flags & (VM_DONTEXPAND | VM_PFNMAP):
        return -EINVAL
    if within > vma.vm_end - remap.address:
        return -EFAULT
    if remap.new_len > remap.old_len and vma.vm_flags & (VM_DONTEXPAND | VM_PFNMAP):
        return -EFAULT
    return 0


def _mremap_to(remap: _Remap) -> int:
    """mremap_to: the destination goes, then what a shrink gives up, then the rest moves (RULES 26).

    The source is looked up anew: it may be what is left of the vma that the destination was cut from
    (`min.mremap.fixed_within_one_vma_down`).
    """
    mm = remap.mm
    if remap.fixed:
        error = do_munmap(mm, remap.new_address, remap.new_len)
        if error:
            return error
    if remap.old_len > remap.new_len:
        error = do_munmap(mm, remap.address + remap.new_len, remap.old_len - remap.new_len)
        if error:
            return error
        remap = replace(remap, old_len=remap.new_len)
    vma = mm.vma_lookup(remap.address)
    if vma is None:
        return -EFAULT
    error = _may_resize(vma, remap, remap.old_len)
    if error:
        return error
    if not remap.fixed:
        target = _new_place(vma, remap)
        if target < 0:
            return target
        remap = replace(remap, new_address=target)
    return _move_vma(vma, remap)


def _remap_move(remap: _Remap) -> int:
    """remap_move: several vmas move, and the gaps between them stay; a hole at the start is -EFAULT. Each piece of the
    destination is unmapped just before its move, and a vma may fail with those before it moved."""
    mm, start = remap.mm, remap.address
    end = start + remap.old_len
    reached = start
    while vma := mm.find_vma(reached):
        if vma.vm_start >= end:
            break
        address = max(vma.vm_start, start)
        if reached == start < address:
            return -EFAULT
        reached = vma.vm_end
        length = min(vma.vm_end, end) - address
        target = remap.new_address + address - start
        piece = replace(remap, address=address, old_len=length, new_len=length, new_address=target)
        moved = _check_prep_vma(piece) or _mremap_to(piece)
        if moved < 0:
            return moved
    return remap.new_address if reached > start else -EFAULT


def _mremap_at(remap: _Remap) -> int:
    """mremap_at: shrink or grow in place, or move where growing needs it."""
    mm, address, new_len = remap.mm, remap.address, remap.new_len
    if remap.old_len >= new_len:
        if remap.old_len > new_len:
            error = do_munmap(mm, address + new_len, remap.old_len - new_len)
            if error:
                return error
        return address
    vma = mm.vma_lookup(address)
    assert vma is not None
    error = _may_resize(vma, remap, remap.old_len)
    if error:
        return error
    end = address + new_len
    if vma.vm_end == address + remap.old_len and not mm.intersecting(vma.vm_end, end):
        mm.tables.reach(end)
        mm.resize(vma, vma.vm_start, end)
        merge_vmas(mm, vma)
        return address
    if not remap.maymove:
        return -ENOMEM
    target = _new_place(vma, remap)
    return target if target < 0 else _move_vma(vma, replace(remap, new_address=target))


def _new_place(vma: VmArea, remap: _Remap) -> int:
    """Return the address that the kernel chooses, or -errno."""
    if remap.chosen is not None:
        return remap.chosen
    offset = 0
    if vma.vm_file is not None:
        offset = (vma.vm_pgoff << remap.mm.kernel.geometry.PAGE_SHIFT) + remap.address - vma.vm_start
    return get_unmapped_area(remap.mm, offset, remap.new_len, file=vma.vm_file)


def _move_vma(vma: VmArea, remap: _Remap) -> int:
    """move_vma: a copy of the vma, the entries moved to it, the old range unmapped."""
    mm, address, old_len, new_address = remap.mm, remap.address, remap.old_len, remap.new_address
    kernel = mm.kernel
    shift = kernel.geometry.PAGE_SHIFT
    pgoff = vma.vm_pgoff + ((address - vma.vm_start) >> shift)
    if vma.is_anonymous and vma.anon_vma is None:
        pgoff = new_address >> shift
    new = vm_area_dup(vma, vm_start=new_address, vm_end=new_address + remap.new_len, vm_pgoff=pgoff)
    if new.vm_ops is not None and new.vm_ops.open is not None:
        new.vm_ops.open(new)
    mm.tables.reach(new.vm_end)
    vma_link(new)
    move_page_tables(vma, address, new, new_address, old_len)
    if vma.vm_flags & VM_PFNMAP:
        kernel.ops.untrack_pfn_clear(vma)
    if not remap.dontunmap:
        do_munmap(mm, address, old_len)
    else:
        vma.vm_flags &= ~VM_LOCKED
        if (vma.vm_start, vma.vm_end) == (address, address + old_len):  # no page of it is left
            vma.anon_vma = None
            vma.vm_pgoff = vma.vm_start >> shift if vma.is_anonymous else vma.vm_pgoff
    merge_vmas(mm, new)
    return new_address
