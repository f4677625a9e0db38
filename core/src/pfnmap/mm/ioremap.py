"""The kernel's own mappings of device memory: only what the architecture keeps of their caching is modelled.

Source: mm/ioremap.c and arch/x86/mm/ioremap.c of 6.12.117; pinned by the memory types of the pat.vfio_* and
cachemode.* records.
"""

from __future__ import annotations

from pfnmap.contract.kernel import MachineState
from pfnmap.vm_flags import VM_READ, VM_SHARED, VM_WRITE

__all__ = ["ioremap", "ioremap_prot", "iounmap"]


def ioremap(machine: MachineState, phys: int, size: int) -> int:
    """Map `size` bytes of a device uncached; return 0, or a negative errno where the kernel returns no address."""
    ops = machine.kernel.ops
    return ioremap_prot(machine, phys, size, ops.pgprot_noncached(ops.vm_get_page_prot(VM_READ | VM_WRITE | VM_SHARED)))


def ioremap_prot(machine: MachineState, phys: int, size: int, prot: int) -> int:
    """Map `size` bytes of a device with the caching of a pgprot; return as `ioremap`."""
    return int(machine.kernel.ops.ioremap_prot(machine, *_pages(machine, phys, size), prot))


def iounmap(machine: MachineState, phys: int, size: int) -> None:
    """Undo an ioremap of the same bytes."""
    machine.kernel.ops.iounmap(machine, *_pages(machine, phys, size))


def _pages(machine: MachineState, phys: int, size: int) -> tuple[int, int]:
    """The pages that a range lies in, as (address, size)."""
    page = machine.kernel.geometry.PAGE_SIZE
    start = phys & -page
    return start, -(-(phys + size - start) // page) * page
