"""Kvm: the module and its scenario actions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from errno import errorcode
from itertools import pairwise
from typing import Any, ClassVar

from pfnmap import Action, BadInput, Machine, Module, Refused, ScenarioRun
from pfnmap.contract.guest import Hypervisor
from pfnmap.contract.option import PlanOption
from pfnmap.limits import bounded

from .kvm_main import Vm
from .mmu import MMIO, guest_mmu, leaf_for
from .plan import GPA, KVM, KvmGuests
from .stage2 import LEVELS, Leaf

__all__ = ["Kvm"]

_SLOT_BITS = 16


class Kvm(Module):
    """One virtual machine, of the process that first gives it memory."""

    name: ClassVar[str] = "kvm"
    provides: ClassVar[tuple[str, ...]] = (
        "hva_to_pfn_remapped",
        "host_pfn_mapping_level",
        "transparent_hugepage_adjust",
        "kvm_riscv_gstage_map",
        "kvmppc_book3s_instantiate_page",
    )
    consumes: ClassVar[tuple[str, ...]] = (
        "fixup_user_fault",
        "follow_pfnmap",
        "follow_pte",
        "mmap_lock",
        "mmu_notifier_register",
    )

    hypervisor: ClassVar[Hypervisor | None] = KvmGuests()
    plan_options: ClassVar[tuple[PlanOption, ...]] = (KVM, GPA)

    def boot(self, machine: Machine) -> None:
        """Start over without a virtual machine."""
        super().boot(machine)
        self._vm: Vm | None = None

    def actions(self) -> Mapping[str, Action]:
        """What scenarios may do with KVM."""
        return {
            "memslot": Action(
                self._memslot,
                {"slot": "int", "gpa": "address", "va": "address", "length": "size", "readonly": "bool", "log": "bool"},
                optional=frozenset({"readonly", "log"}),
            ),
            "map": Action(self._map, {"gpa": "address", "length": "size", "access": "str"}),
        }

    def _memslot(
        self, run: ScenarioRun, slot: int, gpa: int, va: int, length: int, readonly: bool = False, log: bool = False
    ) -> dict[str, Any]:
        """KVM_SET_USER_MEMORY_REGION; `log`: with KVM_MEM_LOG_DIRTY_PAGES. Length 0 deletes the slot.

        Gives `leaves`: how many the second-stage tables hold then, by level.
        """
        mmu = guest_mmu(self.kernel)
        if not 0 <= slot < 1 << _SLOT_BITS:
            raise Refused("kvm.memslot", f"slot {slot}: of the guest's address spaces only the first is modelled")
        if readonly and not mmu.has_readonly:
            return {"result": "EINVAL", "leaves": {}}
        if self._vm is None:
            self._vm = Vm(self.machine, run.current, mmu.prepare, mmu.flush, mmu.internal_slots)
        error = self._vm.set_memory_region(run.current, slot, gpa, length, va, readonly, log)
        return {"result": errorcode[-error] if error else "ok", "leaves": _counted(self._vm.stage2)}

    def _map(self, run: ScenarioRun, gpa: int, length: int, access: str) -> dict[str, Any]:
        """The guest touches every page of [gpa, gpa + length) once, in ascending order, until something stops it.

        Gives `guest_faults` (exits to KVM because of the second-stage tables), `leaves` of the range by level,
        `stage2` (the same as runs: `gpa`, `hpa`, `level`, `count`, `writable`) and, where it ended early, `gpa` of the
        access that did. `result`: ok; MMIO (user space has to serve the access: no memslot, or a write to a read-only
        one); EMULATE (x86: the process's entry is not writable); EFAULT (KVM_RUN fails).
        """
        if access not in ("read", "write"):
            raise BadInput("kvm.map", f"access {access!r} is neither read nor write")
        if length <= 0:
            raise BadInput("kvm.map", "length must be positive")
        guest_mmu(self.kernel)
        shift = self.kernel.geometry.PAGE_SHIFT
        start, end = gpa >> shift, -(-(gpa + length) >> shift)
        vm = self._vm
        if vm is None:
            raise BadInput("kvm.map", "there is no virtual machine yet; kvm.memslot makes one")
        faults, result, gfn = self._touch(vm, start, end, access == "write")
        leaves = vm.stage2.within(start, end)
        stopped = {} if result == "ok" else {"gpa": hex(gfn << shift)}
        return {
            "result": result,
            **stopped,
            "guest_faults": faults,
            "leaves": _counted(leaves),
            "stage2": [_run(vm, leaf, count) for leaf, count in _runs(vm, leaves)],
        }

    def _touch(self, vm: Vm, gfn: int, end: int, write: bool) -> tuple[int, str, int]:
        """Touch [gfn, end); return how many faults that took, the result, and where it ended."""
        faults = 0
        while gfn < end:
            leaf = vm.stage2.leaf(gfn)
            if leaf is None or (write and not leaf.writable):
                faults = bounded("kvm.map", faults + 1, unit="faults")
                result = self._fault(vm, gfn, write)
                if result != "ok":
                    return faults, result, gfn
                leaf = vm.stage2.leaf(gfn)
            assert leaf is not None
            gfn = leaf.gfn + vm.stage2.pages[leaf.level]
        return faults, "ok", gfn

    def _fault(self, vm: Vm, gfn: int, write: bool) -> str:
        """kvm_tdp_page_fault, kvm_handle_guest_abort, gstage_page_fault, kvmppc_book3s_radix_page_fault."""
        mmu = guest_mmu(self.kernel)
        slot = vm.slot_of(gfn)
        if slot is None:
            return MMIO
        if write and slot.readonly and mmu.readonly_write:
            return mmu.readonly_write
        found = vm.gfn_to_pfn(slot, gfn, write)
        if found.error:
            return mmu.errors[found.error]
        vm.stage2.install(leaf_for(vm, mmu, slot, gfn, found.pfn, found.writable))
        return "ok"


def _counted(leaves: Iterable[Leaf]) -> dict[str, int]:
    """How many leaves of each level, without those that there are none of."""
    counts = Counter(leaf.level for leaf in leaves)
    return {level: counts[level] for level in LEVELS if counts[level]}


def _runs(vm: Vm, leaves: list[Leaf]) -> list[tuple[Leaf, int]]:
    """Leaves that continue each other, as (the first, how many)."""
    starts = [n for n, (a, b) in enumerate(pairwise(leaves), 1) if not _continues(vm, a, b)]
    bounds = [0, *starts, len(leaves)]
    return [(leaves[a], b - a) for a, b in pairwise(bounds) if leaves]


def _continues(vm: Vm, a: Leaf, b: Leaf) -> bool:
    pages = vm.stage2.pages[a.level]
    return b == Leaf(a.level, a.gfn + pages, a.pfn + pages, a.writable)


def _run(vm: Vm, leaf: Leaf, count: int) -> dict[str, Any]:
    shift = vm.kernel.geometry.PAGE_SHIFT
    return {
        "gpa": hex(leaf.gfn << shift),
        "hpa": hex(leaf.pfn << shift),
        "level": leaf.level,
        "count": count,
        "writable": leaf.writable,
    }
