"""At which level a guest's fault on a pfnmap is mapped, by architecture; and what each does with errors and memslots.

Read and not run, 6.12.117 and 6.1.192: x86_64 `arch/x86/kvm/mmu/mmu.c` (kvm_mmu_hugepage_adjust,
kvm_mmu_max_mapping_level, host_pfn_mapping_level), `x86.c` (kvm_alloc_memslot_metadata); arm64 `arch/arm64/kvm/mmu.c`
(user_mem_abort, transparent_hugepage_adjust, fault_supports_stage2_huge_mapping); riscv64 `arch/riscv/kvm/mmu.c`
(kvm_riscv_gstage_map, kvm_arch_prepare_memory_region); powerpc64 `arch/powerpc/kvm/book3s_64_mmu_radix.c`
(kvmppc_book3s_instantiate_page). x86's tables are taken to have 2M and 1G leaves (EPT and NPT of any current CPU).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from errno import EINVAL, EPERM

from pfnmap import Level, LinkedKernel, Refused
from pfnmap.limits import bounded
from pfnmap.vm_flags import VM_PFNMAP, VM_WRITE

from .kvm_main import ERR_FAULT, ERR_RO_FAULT, MemorySlot, Vm
from .stage2 import LEVELS, Leaf

__all__ = ["EMULATE", "MMIO", "GuestMmu", "guest_mmu", "leaf_for"]

EMULATE = "EMULATE"
"""RET_PF_EMULATE: the instruction is emulated, here in the end as an access that user space serves."""

MMIO = "MMIO"
"""KVM_EXIT_MMIO: user space serves the access."""


@dataclass(frozen=True)
class GuestMmu:
    """What an architecture's KVM does.

    `level(vm, slot, gfn)`: of the leaf for a gfn whose page is there in the process. `errors`: what becomes of an
    error of hva_to_pfn. `readonly_write`: what a write to a read-only slot is, "" where it goes the way of other
    faults.
    """

    level: Callable[[Vm, MemorySlot, int], Level]
    errors: Mapping[str, str]
    readonly_write: str
    prepare: Callable[[Vm, MemorySlot], int]
    flush: Callable[[Vm, MemorySlot], None]
    has_readonly: bool = True
    internal_slots: int = 0


def guest_mmu(kernel: LinkedKernel) -> GuestMmu:
    """Return what this kernel's KVM does. Raises Refused for an architecture, or an MMU of it, that is not modelled."""
    name = kernel.arch.name
    if name not in _ARCHITECTURES:
        raise Refused("kvm", _WHY.get(name, f"{name} is not modelled; {', '.join(_ARCHITECTURES)} are"))
    if kernel.cpu.get("mmu") == "hash":
        raise Refused("kvm", f"{name} with the hash MMU is not modelled; with the radix MMU it is")
    return _ARCHITECTURES[name]


_WHY = {"s390": "s390 is not modelled: its guests share the page tables of the process (gmap)"}


def _host_level(vm: Vm, slot: MemorySlot, gfn: int) -> Level:
    """The level of the process's leaf for a gfn; that of a base page where there is none (host_pfn_mapping_level)."""
    leaf = vm.mm.tables.leaf(vm.hva(slot, gfn))
    return leaf[0] if leaf is not None else "pte"


def _congruent(vm: Vm, slot: MemorySlot, level: Level) -> bool:
    """Whether gfns and addresses of a slot are the same modulo a leaf of a level."""
    page = vm.kernel.geometry.PAGE_SIZE
    return (slot.base_gfn - slot.userspace_addr // page) % vm.stage2.pages[level] == 0


def _block_fits(vm: Vm, slot: MemorySlot, level: Level, gfn: int) -> bool:
    """Whether the block of a level around a gfn lies in the slot, with gfns and addresses congruent.

    x86's lpage_info (disallow_lpage) and arm64's fault_supports_stage2_huge_mapping say the same.
    """
    pages = vm.stage2.pages[level]
    start = gfn & -pages
    return _congruent(vm, slot, level) and slot.base_gfn <= start and start + pages <= slot.end_gfn


def _x86_level(vm: Vm, slot: MemorySlot, gfn: int) -> Level:
    """kvm_mmu_max_mapping_level: the largest level that the slot allows here, and no larger than the process's."""
    if slot.log_dirty:
        return "pte"
    allowed = next(level for level in LEVELS if level == "pte" or _block_fits(vm, slot, level, gfn))
    return max(allowed, _host_level(vm, slot, gfn), key=LEVELS.index)


def _arm64_level(vm: Vm, slot: MemorySlot, gfn: int) -> Level:
    """transparent_hugepage_adjust: a PMD block where the process has one or a larger; before
    `arm64-kvm-pfnmap-block` devices were left out of it."""
    if slot.log_dirty or not vm.kernel.has("arm64-kvm-pfnmap-block"):
        return "pte"
    return "pmd" if _host_level(vm, slot, gfn) != "pte" and _block_fits(vm, slot, "pmd", gfn) else "pte"


def _riscv_level(vm: Vm, slot: MemorySlot, gfn: int) -> Level:
    """kvm_riscv_gstage_map: base pages for any VM_PFNMAP mapping."""
    return "pte"


def _powerpc_level(vm: Vm, slot: MemorySlot, gfn: int) -> Level:
    """kvmppc_book3s_instantiate_page: the process's own level where gfn and address are congruent modulo that, else a
    base page, nothing between. The ends of the slot are not looked at."""
    level = _host_level(vm, slot, gfn)
    return level if not slot.log_dirty and _congruent(vm, slot, level) else "pte"


# kvm_arch_prepare_memory_region, kvm_arch_flush_shadow_memslot


def _prepare_nothing(vm: Vm, slot: MemorySlot) -> int:
    return 0


def _arm64_prepare(vm: Vm, slot: MemorySlot) -> int:
    """-EINVAL for a dirty log of a pfnmap."""
    size = slot.npages * vm.kernel.geometry.PAGE_SIZE
    vmas = vm.mm.intersecting(slot.userspace_addr, slot.userspace_addr + size)
    return -EINVAL if slot.log_dirty and any(vma.vm_flags & VM_PFNMAP for vma in vmas) else 0


def _riscv_prepare(vm: Vm, slot: MemorySlot) -> int:
    """-EPERM for a writable slot over memory that is not, -EINVAL for a dirty log of a pfnmap.

    Until `riscv-kvm-no-pfnmap-ioremap` pfnmaps are mapped at once, with base pages, to the physical address that
    vm_pgoff gave before `vfio-unmap-mapping-range` (kvm_riscv_gstage_ioremap). The guest address of a second pfnmap in
    one slot is that of the slot's start again: `hva` has moved on, base_gpa has not.
    """
    page, shift = vm.kernel.geometry.PAGE_SIZE, vm.kernel.geometry.PAGE_SHIFT
    hva, end = slot.userspace_addr, slot.userspace_addr + slot.npages * page
    for vma in vm.mm.intersecting(hva, end):
        if not slot.readonly and not vma.vm_flags & VM_WRITE:
            return -EPERM
        start, stop = max(hva, vma.vm_start), min(end, vma.vm_end)
        if vma.vm_flags & VM_PFNMAP:
            if slot.log_dirty:
                return -EINVAL
            if not vm.kernel.has("riscv-kvm-no-pfnmap-ioremap"):
                gfn = slot.base_gfn + ((start - hva) >> shift)
                pfn = vma.vm_pgoff + ((start - vma.vm_start) >> shift)
                _ioremap(vm, gfn, pfn, (stop - start) >> shift, not slot.readonly)
        hva = stop
    return 0


def _ioremap(vm: Vm, gfn: int, pfn: int, count: int, writable: bool) -> None:
    for n in range(bounded("kvm.memslot", count)):
        vm.stage2.install(Leaf("pte", gfn + n, pfn + n, writable))


def _flush_slot(vm: Vm, slot: MemorySlot) -> None:
    vm.stage2.zap(slot.base_gfn, slot.end_gfn)


def _flush_all(vm: Vm, slot: MemorySlot) -> None:
    """x86 drops everything of the guest with any slot (6.1; later KVM_X86_QUIRK_SLOT_ZAP_ALL, which is on)."""
    vm.stage2.zap(0, 1 << 64)


_FAULT = {ERR_FAULT: "EFAULT", ERR_RO_FAULT: "EFAULT"}

_ARCHITECTURES: Mapping[str, GuestMmu] = {
    "x86_64": GuestMmu(
        _x86_level, {**_FAULT, ERR_RO_FAULT: EMULATE}, "", _prepare_nothing, _flush_all, internal_slots=3
    ),
    "arm64": GuestMmu(_arm64_level, _FAULT, MMIO, _arm64_prepare, _flush_slot),
    "riscv64": GuestMmu(_riscv_level, _FAULT, MMIO, _riscv_prepare, _flush_slot),
    "powerpc64": GuestMmu(_powerpc_level, _FAULT, "", _prepare_nothing, _flush_slot, has_readonly=False),
}


def leaf_for(vm: Vm, mmu: GuestMmu, slot: MemorySlot, gfn: int, pfn: int, writable: bool) -> Leaf:
    """Return the leaf that maps a gfn, which is to be `pfn`: the whole block of its level."""
    level = mmu.level(vm, slot, gfn)
    within = gfn % vm.stage2.pages[level]
    return Leaf(level, gfn - within, pfn - within, writable)
