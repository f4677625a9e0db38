"""Memory failure on PFNs without struct page (mm/memory-failure.c), in both policies of the discussion under the
series.

A driver registers the PFNs that it maps (`register_pfn_address_space`), and whoever maps a bad one gets SIGBUS. As
merged (`memory-failure-no-struct-page`, and `memory-failure-pfn` for a driver that registers) the mapping stays, and
who consumes the poison gets SIGBUS again. With `memory-failure-pfn-unmap` (discussed, not merged) the leaf is unmapped,
and the driver refaults around the bad page with smaller orders: its handler asks `is_poisoned`. What happens to
registered PFNs is read from the upstream change and the thread, not run against a recording.
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import EBUSY, ENXIO

from pfnmap.contract.fault import BUS_MCEERR_AO
from pfnmap.contract.machine import Machine, PfnSpace
from pfnmap.contract.vma import MmStruct
from pfnmap.mm.zap import unmap_mapping_range
from pfnmap.trace import Message

__all__ = [
    "Poisoned",
    "is_poisoned",
    "memory_failure",
    "register_pfn_address_space",
]


@dataclass(frozen=True)
class Poisoned:
    """A process that maps the bad page: it gets SIGBUS with this si_code and si_addr (bytes)."""

    mm: MmStruct
    si_code: int
    si_addr: int


def register_pfn_address_space(machine: Machine, space: PfnSpace) -> None:
    """A driver says which PFNs it maps; forgotten at the next boot."""
    machine.pfn_spaces.append(space)


def is_poisoned(machine: Machine, pfn: int, count: int) -> bool:
    """Tell whether one of `count` PFNs from `pfn` on is known to be bad."""
    return any(pfn <= bad < pfn + count for bad in machine.poisoned)


def memory_failure(machine: Machine, pfn: int) -> tuple[int, list[Poisoned]]:
    """A page frame without struct page is said to be bad: return 0 or -errno, and who is signalled.

    Of a frame that no driver registered: -ENXIO, and from `memory-failure-no-struct-page` on -EBUSY
    (memory_failure_pfn: MF_IGNORED), with a message each (`mf.hard_offline.*` of 6.12.117 and 7.3.4). Whoever maps one
    that is registered is signalled, in both policies.
    """
    spaces = [s for s in machine.pfn_spaces if s.pfn <= pfn < s.pfn + s.count]
    if not spaces:
        ignored = machine.kernel.has("memory-failure-no-struct-page")
        said = "recovery action for non struct page pfn: Ignored" if ignored else "memory outside kernel control"
        machine.trace.emit(Message(f"Memory failure: {pfn:#x}: {said}"))
        return -EBUSY if ignored else -ENXIO, []
    shift = machine.kernel.geometry.PAGE_SHIFT
    signalled: list[Poisoned] = []
    for space in spaces:
        pgoff = space.pgoff + pfn - space.pfn
        for vma in space.mapping.i_mmap.values():
            address = vma.vm_start + ((pgoff - vma.vm_pgoff) << shift)
            if vma.vm_start <= address < vma.vm_end:
                signalled.append(Poisoned(vma.vm_mm, BUS_MCEERR_AO, address))
        if machine.kernel.has("memory-failure-pfn-unmap"):
            unmap_mapping_range(space.mapping, pgoff << shift, 1 << shift)
    return 0, signalled
