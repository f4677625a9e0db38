"""Is there a struct page behind an entry? vm_normal_page and its forms for PMD and PUD leaves.

Source: mm/memory.c of 6.12.117 (and 6.1.192); the form that all levels share (`vm-normal-page-by-level`) and that of
the posted series are read from their patches, not run. A "page" is the PFN of a page of RAM. A file of its own:
memory.c is long in the kernel too.

How a special mapping is told: by the special bit where the architecture has one. Where it has none, by the vma: in a
VM_PFNMAP mapping that is copied on write, vm_pgoff is the PFN of the vma's first page (remap_pfn_range sees to that),
so an entry that holds vm_pgoff plus its offset is the pfnmap's, and any other is a copy: anonymous memory.
"""

from __future__ import annotations

from pfnmap.contract.entry import Level
from pfnmap.contract.kernel import MachineState
from pfnmap.contract.vma import VmArea
from pfnmap.errors import Refused
from pfnmap.mm.huge_memory import is_cow_mapping
from pfnmap.trace import Bug
from pfnmap.vm_flags import VM_MIXEDMAP, VM_PFNMAP

__all__ = ["is_zero_pfn", "pfn_valid", "vm_normal_page", "vm_normal_page_pmd", "vm_normal_page_pud"]


def pfn_valid(machine: MachineState, pfn: int) -> bool:
    """Tell whether a PFN has a struct page: whether it is a page of the simulated RAM."""
    address = pfn << machine.kernel.geometry.PAGE_SHIFT
    return address in machine.phys.ram or address in machine.phys.tables


def is_zero_pfn(machine: MachineState, pfn: int) -> bool:
    """Tell whether a PFN is that of the zero page."""
    return pfn << machine.kernel.geometry.PAGE_SHIFT == machine.phys.zero_page


def vm_normal_page(vma: VmArea, address: int, pte: int) -> int | None:
    """Return the PFN of the page behind a present PTE at `address` (bytes), or None where there is none."""
    kernel = vma.vm_mm.kernel
    ops = kernel.ops
    if kernel.has("vm-normal-page-by-level"):
        return _normal_page(vma, address, "pte", pte)
    pfn = ops.pte_pfn(pte)
    if kernel.config.enabled("ARCH_HAS_PTE_SPECIAL"):
        if ops.pte_special(pte):
            if (
                not vma.vm_flags & (VM_PFNMAP | VM_MIXEDMAP)
                and not is_zero_pfn(vma.vm_mm.machine, pfn)
                and not ops.pte_devmap(pte)
            ):
                _print_bad(vma.vm_mm.machine, "pte", pte)
            return None
    elif _is_raw(vma, address, pfn) or is_zero_pfn(vma.vm_mm.machine, pfn):
        return None
    return _pfn_to_page(vma.vm_mm.machine, "pte", pte, pfn)


def vm_normal_page_pmd(vma: VmArea, address: int, pmd: int) -> int | None:
    """Return the PFN of the page that a present PMD leaf maps at its start, or None where there is none.

    As posted (without `vm-normal-page-pmd-special`) it does not look at the special bit: a special leaf of a COW
    mapping whose vm_pgoff is not the PFN passes for a page, unless it lies above all RAM.
    """
    kernel = vma.vm_mm.kernel
    ops = kernel.ops
    if kernel.has("vm-normal-page-by-level"):
        return _normal_page(vma, address, "pmd", pmd)
    pfn = ops.pmd_pfn(pmd)
    if kernel.has("vm-normal-page-pmd-special") and ops.pmd_special(pmd):
        return None
    if _is_raw(vma, address, pfn) or (ops.pmd_devmap(pmd) and not vma.vm_flags & VM_MIXEDMAP):
        return None
    return pfn if pfn <= _highest_memmap_pfn(vma.vm_mm.machine) else None


def vm_normal_page_pud(vma: VmArea, address: int, pud: int) -> int | None:
    """Return the PFN of the page that a present PUD leaf maps at its start, or None where there is none.

    Raises Refused for releases before `vm-normal-page-by-level`, which have no such function.
    """
    if not vma.vm_mm.kernel.has("vm-normal-page-by-level"):
        raise Refused("vm_normal_page_pud", "not in this release (vm-normal-page-by-level)")
    return _normal_page(vma, address, "pud", pud)


def _normal_page(vma: VmArea, address: int, level: Level, entry: int) -> int | None:
    """__vm_normal_page: all levels alike."""
    kernel = vma.vm_mm.kernel
    pfn = getattr(kernel.ops, f"{level}_pfn")(entry)
    if kernel.config.enabled("ARCH_HAS_PTE_SPECIAL"):
        if getattr(kernel.ops, f"{level}_special")(entry):
            if not vma.vm_flags & (VM_PFNMAP | VM_MIXEDMAP) and not is_zero_pfn(vma.vm_mm.machine, pfn):
                _print_bad(vma.vm_mm.machine, level, entry)
            return None
    elif _is_raw(vma, address, pfn) or is_zero_pfn(vma.vm_mm.machine, pfn):
        return None
    return _pfn_to_page(vma.vm_mm.machine, level, entry, pfn)


def _is_raw(vma: VmArea, address: int, pfn: int) -> bool:
    """Tell by a vma's flags and vm_pgoff whether an entry at `address` is a raw PFN of it and not a page."""
    kernel = vma.vm_mm.kernel
    if vma.vm_flags & VM_MIXEDMAP:
        return not pfn_valid(vma.vm_mm.machine, pfn)
    if not vma.vm_flags & VM_PFNMAP:
        return False
    offset = (address - vma.vm_start) >> kernel.geometry.PAGE_SHIFT
    return pfn == vma.vm_pgoff + offset or not is_cow_mapping(vma.vm_flags)


def _pfn_to_page(machine: MachineState, level: Level, entry: int, pfn: int) -> int | None:
    if not pfn_valid(machine, pfn) and pfn > _highest_memmap_pfn(machine):
        _print_bad(machine, level, entry)
        return None
    return pfn


def _highest_memmap_pfn(machine: MachineState) -> int:
    """The last PFN with a struct page. One that is lower and no RAM passes for a page, as in the kernel."""
    return max(max(machine.phys.ram), max(machine.phys.tables)) >> machine.kernel.geometry.PAGE_SHIFT


def _print_bad(machine: MachineState, level: Level, entry: int) -> None:
    """print_bad_pte, of which the first words are kept."""
    machine.trace.emit(Bug(f"BUG: Bad page map in process init  {level}:{entry:016x}"))
