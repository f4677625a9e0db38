"""mmu notifiers: telling who mirrors a process's page tables (KVM) what is about to change (mm/mmu_notifier.c).

Ranges are those of the kernel's `mmu_notifier_invalidate_range_start` calls: of munmap and zaps, of mprotect, of moving
page tables, of splitting a huge leaf (the whole leaf), of clear_refs, of a page's copy on write and of fork of memory
that is copied on write. What of it a guest of KVM sees of a BAR is recorded (group kvm, `munmap.*`, `mprotect.*`,
`fork`, `mremap.move`, `smaps`, `clear_refs*`). A file that maps new pages or raises permissions tells nobody, as in the
kernel.
"""

from __future__ import annotations

from collections.abc import Callable

from pfnmap.contract.vma import MmStruct

__all__ = ["mmu_notifier_invalidate_range", "mmu_notifier_register"]


def mmu_notifier_register(mm: MmStruct, invalidate: Callable[[int, int], None]) -> None:
    """Have `invalidate(start, end)` called (bytes) before the entries of [start, end) of an address space change."""
    mm.mmu_notifiers.append(invalidate)


def mmu_notifier_invalidate_range(mm: MmStruct, start: int, end: int) -> None:
    """The entries of [start, end) are about to change: tell those who registered."""
    for invalidate in mm.mmu_notifiers:
        invalidate(start, end)
