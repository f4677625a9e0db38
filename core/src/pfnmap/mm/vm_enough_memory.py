"""Is there memory for a mapping? The heuristic of overcommit_memory 0 (mm/util.c, __vm_enough_memory)."""

from __future__ import annotations

from pfnmap.contract.kernel import MachineState

__all__ = ["vm_enough_memory"]


def vm_enough_memory(machine: MachineState, pages: int) -> bool:
    """Tell whether one request for so many pages is not obviously more than the machine has (without swap).

    `unpinned.rejected_fixed.pud.private`: 2G on a machine of 1G. The pages that the kernel keeps for itself are not
    known; what is installed is the bound, and is itself too much.
    """
    return machine.installed is None or pages << machine.kernel.geometry.PAGE_SHIFT < machine.installed
