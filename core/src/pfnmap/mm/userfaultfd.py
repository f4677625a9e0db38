"""What a registration with userfaultfd leaves behind in the entries once it has ended (mm/userfaultfd.c)."""

from __future__ import annotations

from pfnmap.contract.vma import VmArea
from pfnmap.vm_flags import VM_SHARED

__all__ = ["uffd_wp_range"]


def uffd_wp_range(vma: VmArea, start: int, end: int) -> None:
    """Resolve the write protection of [start, end) of shared memory (bytes), as the last close of a descriptor does.

    The entries get the protection that write notification asks for, which is still on then: they are read-only, and a
    write takes one more fault (`neighbour.uffd.wp.shared`; not on 6.1.192). Private memory stays
    as it is (`neighbour.uffd.wp.fork`).
    """
    mm = vma.vm_mm
    if not vma.vm_flags & VM_SHARED or not mm.kernel.has("uffd-wp-writenotify"):
        return
    ops = mm.kernel.ops
    prot = ops.vm_get_page_prot(vma.vm_flags & ~VM_SHARED)
    for address in range(max(start, vma.vm_start), min(end, vma.vm_end), mm.kernel.geometry.PAGE_SIZE):
        leaf = mm.tables.leaf(address)
        if leaf is not None and leaf[0] == "pte":
            table, index = leaf[1]
            table[index] = ops.pte_modify(table[index], prot)
