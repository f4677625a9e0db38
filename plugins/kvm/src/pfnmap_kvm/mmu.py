"""What an architecture's KVM does: the class that x86.py, arm64.py, riscv.py, ... implement, and what they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Final, Literal

from pfnmap import Level, LinkedKernel

from .hva_to_pfn import ERR_FAULT, ERR_RO_FAULT
from .kvm_main import Vm
from .memslot import MemorySlot
from .stage2 import Leaf

__all__ = [
    "ACCESSES",
    "EFAULT",
    "EMULATED",
    "LOOP",
    "MMIO",
    "OK",
    "Access",
    "GuestMmu",
    "block_fits",
    "congruent",
    "host_level",
    "leaf_for",
]

Access = Literal["read", "write", "execute"]
ACCESSES: Final[tuple[Access, ...]] = ("read", "write", "execute")

OK: Final = "ok"
"""The guest tries the access again, with a leaf for it."""

EMULATED: Final = "emulated"
"""KVM has done the access for the guest."""

MMIO: Final = "MMIO"
"""KVM_EXIT_MMIO: user space serves the access."""

EFAULT: Final = "EFAULT"
"""KVM_RUN fails."""

LOOP: Final = "LOOP"
"""The guest tries the access again, and again, with no leaf."""


class GuestMmu(ABC):
    """What an architecture's KVM does with memslots and guest faults. One instance for each virtual machine."""

    has_readonly: ClassVar[bool] = True
    """KVM_CAP_READONLY_MEM."""

    internal_slots: ClassVar[int] = 0
    """How many slot numbers the architecture keeps (KVM_INTERNAL_MEM_SLOTS)."""

    address_spaces: ClassVar[int] = 1
    """How many address spaces a guest has (KVM_MAX_NR_ADDRESS_SPACES)."""

    errors: ClassVar[Mapping[str, str]] = {ERR_FAULT: EFAULT, ERR_RO_FAULT: EFAULT}
    """What becomes of an error of hva_to_pfn."""

    def __init__(self, kernel: LinkedKernel, parameters: Mapping[str, bool]) -> None:
        """Begin without tables; `parameters`: those of the module, as they are at any time."""
        self.kernel = kernel
        self.parameters = parameters

    def prepare(self, vm: Vm, new: MemorySlot, moved: bool) -> int:
        """kvm_arch_prepare_memory_region: of a slot that is new or `moved`, or whose dirty log is switched; return 0 or
        -errno."""
        return 0

    def log_switched(self, vm: Vm, slot: MemorySlot) -> None:
        """kvm_arch_commit_memory_region of a slot whose dirty log was switched. Here: the leaves are read-only from
        then on, and nothing is undone afterwards."""
        if slot.log_dirty and not slot.readonly:
            vm.stage2.write_protect(slot.base_gfn, slot.end_gfn)

    def log_taken(self, vm: Vm, slot: MemorySlot, pages: list[int]) -> None:
        """kvm_arch_mmu_enable_log_dirty_pt_masked: make pages of a slot read-only again."""
        for page in pages:
            vm.stage2.write_protect(slot.base_gfn + page, slot.base_gfn + page + 1)

    def flush(self, vm: Vm, slot: MemorySlot) -> None:
        """kvm_arch_flush_shadow_memslot: a slot goes away."""
        vm.stage2.zap(slot.base_gfn, slot.end_gfn)

    def knows_mmio(self, vm: Vm, gfn: int) -> bool:
        """Whether an access to a gfn is known to be user space's to serve without a fault that looks for a slot."""
        return False

    def unmap(self, vm: Vm, start: int, end: int) -> None:
        """kvm_unmap_gfn_range: the process's entries behind the gfns [start, end) are about to change."""
        vm.stage2.zap(start, end)

    @abstractmethod
    def fault(self, vm: Vm, gfn: int, access: Access) -> str:
        """Handle a guest's fault; return OK, EMULATED, or what ends the guest's run."""


def host_level(vm: Vm, slot: MemorySlot, gfn: int) -> Level:
    """The level of the process's leaf for a gfn; that of a base page where there is none (host_pfn_mapping_level)."""
    leaf = vm.mm.tables.leaf(vm.hva(slot, gfn))
    return leaf[0] if leaf is not None else "pte"


def congruent(vm: Vm, slot: MemorySlot, level: Level) -> bool:
    """Whether gfns and addresses of a slot are the same modulo a leaf of a level."""
    page = vm.kernel.geometry.PAGE_SIZE
    return (slot.base_gfn - slot.userspace_addr // page) % vm.stage2.pages[level] == 0


def block_fits(vm: Vm, slot: MemorySlot, level: Level, gfn: int) -> bool:
    """Whether the block of a level around a gfn lies in the slot, with gfns and addresses congruent.

    x86's lpage_info (disallow_lpage), fault_supports_stage2_huge_mapping of arm64, fault_supports_gstage_huge_mapping
    of riscv and fault_supports_huge_mapping of loongarch say the same.
    """
    pages = vm.stage2.pages[level]
    start = gfn & -pages
    return congruent(vm, slot, level) and slot.base_gfn <= start and start + pages <= slot.end_gfn


def leaf_for(vm: Vm, level: Level, gfn: int, pfn: int, writable: bool, *, executable: bool = True) -> Leaf:
    """Return the leaf of a level that maps a gfn, which is to be `pfn`: the whole block."""
    within = gfn % vm.stage2.pages[level]
    return Leaf(level, gfn - within, pfn - within, writable, executable)
