"""kvm_memory_slot: what a virtual machine is told of its memory (include/linux/kvm_host.h)."""

from __future__ import annotations

from pfnmap.records import dataclass

__all__ = ["MemorySlot"]


@dataclass(frozen=True)
class MemorySlot:
    """`npages` base pages from `base_gfn` on are those of the process from `userspace_addr` (bytes) on.

    `id`: its number, with the address space in the bits from 16 on. `log_dirty`: KVM_MEM_LOG_DIRTY_PAGES.
    """

    id: int
    base_gfn: int
    npages: int
    userspace_addr: int
    readonly: bool = False
    log_dirty: bool = False

    @property
    def end_gfn(self) -> int:
        """The first gfn past the slot."""
        return self.base_gfn + self.npages
