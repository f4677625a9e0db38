"""Kvm: the module and its scenario actions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from errno import errorcode
from typing import Any, ClassVar

from pfnmap import Action, BadInput, Machine, Module, Refused, ScenarioRun
from pfnmap.contract.guest import Hypervisor
from pfnmap.contract.option import PlanOption
from pfnmap.limits import bounded

from .again import Again, allows
from .architectures import guest_mmu
from .kvm_main import Vm
from .mmu import ACCESSES, EMULATED, MMIO, OK, Access
from .plan import GPA, KVM, KvmGuests
from .stage2 import LEVELS, Leaf
from .x86 import X86Mmu

__all__ = ["Kvm"]

_BOOLEANS = {**dict.fromkeys(("Y", "y", "1", "on"), True), **dict.fromkeys(("N", "n", "0", "off"), False)}
_NX_HUGE_PAGES = {"force": True, "auto": False}  # auto: not on a CPU without the iTLB's fault


class Kvm(Module):
    """One virtual machine, of the process that first gives it memory."""

    name: ClassVar[str] = "kvm"
    provides: ClassVar[tuple[str, ...]] = (
        "hva_to_pfn_remapped",
        "host_pfn_mapping_level",
        "transparent_hugepage_adjust",
        "kvm_riscv_gstage_map",
        "kvmppc_book3s_instantiate_page",
        "kvm_s390_faultin_gfn",
        "kvm_map_page",
        "kvm_get_dirty_log_protect",
    )
    consumes: ClassVar[tuple[str, ...]] = (
        "copy_to_user",
        "each_page",
        "fixup_user_fault",
        "follow_pfnmap",
        "follow_pte",
        "get_user_pages_fast_only",
        "get_user_pages_unlocked",
        "mmap_lock",
        "mmu_notifier_register",
        "put_pages",
    )

    hypervisor: ClassVar[Hypervisor | None] = KvmGuests()
    plan_options: ClassVar[tuple[PlanOption, ...]] = (KVM, GPA)

    def boot(self, machine: Machine) -> None:
        """Start over without a virtual machine, the parameters of x86's module as they are by default on a CPU without
        the iTLB multihit fault."""
        super().boot(machine)
        self.vm: Vm | None = None
        self.parameters = {"eager_page_split": True, "nx_huge_pages": False}

    def actions(self) -> Mapping[str, Action]:
        """What scenarios may do with KVM."""
        return {
            "memslot": Action(
                self._memslot,
                {
                    "slot": "int",
                    "gpa": "address",
                    "va": "address",
                    "length": "size",
                    **dict.fromkeys(("readonly", "log", "nomem"), "bool"),
                },
                optional=frozenset({"readonly", "log", "nomem"}),
            ),
            "map": Action(
                self._map,
                {"gpa": "address", "length": "size", "access": "str", "step": "size"},
                optional=frozenset({"step"}),
            ),
            "dirty_log": Action(self._dirty_log, {"slot": "int"}),
            "param": Action(self._param, {"name": "str", "value": "str"}),
        }

    def _memslot(
        self,
        run: ScenarioRun,
        slot: int,
        gpa: int,
        va: int,
        length: int,
        readonly: bool = False,
        log: bool = False,
        nomem: bool = False,
    ) -> dict[str, Any]:
        """KVM_SET_USER_MEMORY_REGION; `log`: with KVM_MEM_LOG_DIRTY_PAGES. Length 0 deletes the slot. The bits of
        `slot` from 16 on are the address space (1: that of x86's SMM). `nomem`: the machine has no memory for what KVM
        keeps of a slot of that size.

        Gives `leaves`: how many the second-stage tables hold then, by level.
        """
        if self.vm is None:
            self.vm = Vm(self.machine, run.current, guest_mmu(self.kernel)(self.kernel, self.parameters))
        error = self.vm.set_memory_region(run.current, slot, gpa, length, va, readonly, log, nomem)
        return {"result": errorcode[-error] if error else "ok", "leaves": counted(self.vm.stage2.runs(0, 1 << 64))}

    def _dirty_log(self, run: ScenarioRun, slot: int) -> dict[str, Any]:
        """KVM_GET_DIRTY_LOG: `dirty`, how many pages of the slot are, and `first`, which one, counted from the slot's
        first; None if none is."""
        error, dirty = self._made("kvm.dirty_log").get_dirty_log(slot)
        if error:
            return {"result": errorcode[-error]}
        return {"dirty": len(dirty), "first": dirty[0] if dirty else None}

    def _param(self, run: ScenarioRun, name: str, value: str) -> dict[str, Any]:
        """Write a parameter of x86's module in /sys/module/kvm/parameters: eager_page_split, nx_huge_pages. `now`: how
        it reads then. Everything of the guest goes when nx_huge_pages changes (`nx.force`)."""
        if name not in self.parameters or self.kernel.arch.name != "x86_64":
            raise Refused("kvm.param", f"{name} on {self.kernel.arch.name}")
        values = {**_BOOLEANS, **_NX_HUGE_PAGES} if name == "nx_huge_pages" else _BOOLEANS
        if value not in values:
            raise Refused("kvm.param", f"{name} = {value!r} is none of {', '.join(values)}")
        before, self.parameters[name] = self.parameters[name], values[value]
        if name == "nx_huge_pages" and before != values[value] and self.vm is not None:
            assert isinstance(self.vm.mmu, X86Mmu)
            self.vm.mmu.zap_all(self.vm)
        return {"now": "Y" if values[value] else "N"}

    def _made(self, op: str) -> Vm:
        if self.vm is None:
            raise BadInput(op, "there is no virtual machine yet; kvm.memslot makes one")
        return self.vm

    def _map(self, run: ScenarioRun, gpa: int, length: int, access: str, step: int = 0) -> dict[str, Any]:
        """The guest touches every page of [gpa, gpa + length) once, or with `step` one byte every so many bytes, in
        ascending order, until something stops it. `access`: read, write, execute.

        Gives `guest_faults` (exits to KVM because of the second-stage tables), `leaves` of the range by level,
        `stage2` (the same as runs: `gpa`, `hpa`, `level`, `count`, `writable`, `x`) and, where it ended early, `gpa` of
        the access that did. `result`: ok; MMIO (user space has to serve the access); EFAULT (KVM_RUN fails) or another
        errno; HANG (KVM_RUN never returns); LOOP (the guest faults for ever).
        """
        kind = next((known for known in ACCESSES if known == access), None)
        if kind is None:
            raise BadInput("kvm.map", f"access {access!r} is none of {', '.join(ACCESSES)}")
        if length <= 0:
            raise BadInput("kvm.map", "length must be positive")
        page, shift = self.kernel.geometry.PAGE_SIZE, self.kernel.geometry.PAGE_SHIFT
        vm = self._made("kvm.map")
        start, end = gpa >> shift, -(-(gpa + length) >> shift)
        first, last, by = (gpa, gpa + length, step) if step else (start << shift, end << shift, page)
        faults, result, at = self._touch(vm, range(first, last, by), kind)
        leaves = vm.stage2.runs(start, end)
        stopped = {} if result == OK else {"gpa": hex(at), "is_write": access == "write", "len": 1}
        return {
            "result": result,
            **stopped,
            "guest_faults": faults,
            "leaves": counted(leaves),
            "stage2": [_run(vm, leaf, count) for leaf, count in leaves],
        }

    def _touch(self, vm: Vm, touches: range, access: Access) -> tuple[int, str, int]:
        """Touch guest addresses (bytes); return how many faults that took, the result, and where it ended."""
        shift = self.kernel.geometry.PAGE_SHIFT
        again = Again(vm, access)
        faults = n = 0
        answered = OK  # by the page that ended those before it
        while n < len(touches):
            gfn = touches[n] >> shift
            leaf = vm.stage2.leaf(gfn)
            if leaf is not None and allows(leaf, access):
                n += -(-((vm.stage2.end(leaf) << shift) - touches[n]) // touches.step)
                continue
            result, answered = answered, OK
            if result == OK:
                if vm.mmu.knows_mmio(vm, gfn):
                    return faults + again.faults, MMIO, touches[n]
                faults = bounded("kvm.map", faults + 1, unit="faults")
                result = vm.mmu.fault(vm, gfn, access)
            if result == EMULATED:
                n += 1
            elif result != OK:
                return faults + again.faults, result, touches[n]
            elif touches.step == 1 << shift:
                answered = again.fault_in(gfn + 1, touches.stop >> shift)
        return faults + again.faults, OK, touches.stop


def counted(runs: Iterable[tuple[Leaf, int]]) -> dict[str, int]:
    """Count the leaves of each level, without those that there are none of."""
    counts: Counter[str] = Counter()
    for leaf, count in runs:
        counts[leaf.level] += count
    return {level: counts[level] for level in LEVELS if counts[level]}


def _run(vm: Vm, leaf: Leaf, count: int) -> dict[str, Any]:
    shift = vm.kernel.geometry.PAGE_SHIFT
    return {
        "gpa": hex(leaf.gfn << shift),
        "hpa": hex(leaf.pfn << shift),
        "level": leaf.level,
        "count": count,
        "writable": leaf.writable,
        "x": leaf.executable,
    }
