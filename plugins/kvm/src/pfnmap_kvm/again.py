"""Guest faults of pages in a row, at once where they are alike.

The first ones are handled as any fault. What the process's own tables do for the others, and what the trace tells, is
`MmFunctions.each_page`'s to repeat; the second stage gets the same leaves for them, further on. That holds within a
block of a PMD, of the guest's and of the process's addresses alike: there the levels that an architecture chooses among
are settled by the first fault; and where no dirty log is kept, which counts pages.
"""

from __future__ import annotations

from pfnmap.vm_flags import VM_PFNMAP

from .kvm_main import Vm
from .mmu import OK, Access
from .stage2 import Leaf

__all__ = ["Again", "allows"]


def allows(leaf: Leaf, access: Access) -> bool:
    """Tell whether the guest may do that with what a leaf maps."""
    return {"read": True, "write": leaf.writable, "execute": leaf.executable}[access]


class Again:
    """A guest's accesses of one kind to pages in a row; `faults`: how many they took."""

    def __init__(self, vm: Vm, access: Access) -> None:
        self._vm = vm
        self._access = access
        self.faults = 0

    def fault_in(self, gfn: int, end: int) -> str:
        """Fault pages of a pfnmap in from `gfn` on, up to `end` or to one that is mapped already or gets no leaf of its
        own; return what that one answered, or OK where it is to be looked at anew."""
        vm = self._vm
        slot = vm.slot_of(gfn)
        if slot is None or slot.log_dirty:
            return OK
        page, pages = vm.kernel.geometry.PAGE_SIZE, vm.stage2.pages["pmd"]
        start = vm.hva(slot, gfn)
        count = min(end - gfn, slot.end_gfn - gfn, -gfn % pages, -(start // page) % pages)
        if count <= 0 or vm.stage2.runs(gfn, gfn + count):
            return OK
        before = {start: self.faults}  # by the address that they were before
        result = OK

        def access(address: int) -> bool:
            nonlocal result
            at = gfn + (address - start) // page
            vma = vm.mm.vma_lookup(address)
            if vma is None or not vma.vm_flags & VM_PFNMAP or vm.stage2.leaf(at) is not None:
                return False
            self.faults += 1
            result = vm.mmu.fault(vm, at, self._access)
            leaf = vm.stage2.leaf(at)
            return result == OK and leaf is not None and leaf.level == "pte" and allows(leaf, self._access)

        for address, some, step in vm.machine.mm.each_page(vm.mm, start, start + count * page, access, "kvm.map"):
            if step:
                self.faults += (self.faults - before[address - step]) * (some * page // step)
                self._repeat(gfn + (address - start) // page, some, step // page)
            before[address + some * page] = self.faults
        return result

    def _repeat(self, gfn: int, pages: int, step: int) -> None:
        """Give pages from `gfn` on what the `step` pages before them have, as often as it takes."""
        pattern = self._vm.stage2.runs(gfn - step, gfn)
        for on in range(step, pages + step, step) if step > 1 else (1,):
            for leaf, count in pattern:
                moved = leaf._replace(gfn=leaf.gfn + on, pfn=leaf.pfn + on)
                self._vm.stage2.install(moved, count if step > 1 else pages)
