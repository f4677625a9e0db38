"""Is there memory for a mapping? The heuristic of overcommit_memory 0 (mm/util.c, __vm_enough_memory)."""

from __future__ import annotations

from pfnmap.contract.kernel import MachineState

__all__ = ["vm_enough_memory"]

_STRUCT_PAGE = 64


def vm_enough_memory(machine: MachineState, pages: int) -> bool:
    """Tell whether one request for so many pages is not obviously more than the machine has (without swap).

    `unpinned.rejected_fixed.pud.private`: 2G on a machine of 1G. Of what the kernel keeps for itself its memory map is
    known, 64 bytes for each page; the rest, some 5% of a machine of 1G, is not.
    """
    if machine.installed is None:
        return True
    geometry = machine.kernel.geometry
    installed = machine.installed >> geometry.PAGE_SHIFT
    return pages <= installed - (installed * _STRUCT_PAGE >> geometry.PAGE_SHIFT)
