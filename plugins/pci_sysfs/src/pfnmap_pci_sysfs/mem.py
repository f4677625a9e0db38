"""/dev/mem (drivers/char/mem.c; arch/x86/mm/pat/memtype.c for the caching). Pinned by pat.dev_mem and
res.of_vfio_device of 6.12.117; other architectures than x86 are read."""

from __future__ import annotations

from errno import EAGAIN, EPERM

from pfnmap import File, FileOperations, Machine, VmArea, VmOperations

__all__ = ["open_devmem"]


def open_devmem(machine: Machine, *, sync: bool) -> File:
    """Open /dev/mem, with `sync` with O_SYNC. Offsets in it are physical addresses (bytes)."""
    file = File(FileOperations(_mmap_mem, lambda file: "/dev/mem"), machine, sync)
    file.f_mapping = machine.iomem.mapping
    return file


def _mmap_mem(file: File, vma: VmArea) -> int:
    """mmap_mem: -EPERM for a page that a driver has requested (with IO_STRICT_DEVMEM), -EAGAIN where it cannot be
    mapped, as with another memory type than is reserved.

    On x86 memory is mapped cached unless O_SYNC is asked for, elsewhere what is no RAM never is.
    """
    machine = file.machine
    assert isinstance(machine, Machine)
    kernel, mm = machine.kernel, machine.mm
    shift = kernel.geometry.PAGE_SHIFT
    for page in range(vma.vm_pgoff, vma.vm_pgoff + (vma.size >> shift)):
        if mm.iomem_is_exclusive(machine, page << shift):
            return -EPERM
    if file.private_data or kernel.arch.name != "x86_64":
        vma.vm_page_prot = kernel.ops.pgprot_noncached(vma.vm_page_prot)
    access = mm.generic_access_phys if kernel.config.enabled("HAVE_IOREMAP_PROT") else None
    vma.vm_ops = VmOperations(fault=None, access=access)
    failed = mm.remap_pfn_range(vma, vma.vm_start, vma.vm_pgoff, vma.size, vma.vm_page_prot)
    return -EAGAIN if failed else 0
