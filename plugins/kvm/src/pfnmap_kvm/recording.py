"""Recordings of group kvm: a guest with 64K of memory at guest address 0, which touches what its slots map.

Compared besides the common keys: `kvm` of each step (`guest_faults`, `leaves`, `stage2`, `mmio_sptes`) and what the
guest's run ended with. Not compared, because they are the recorder's or the guest's own: the bits of the second-stage
entries, `events`, `functions` and `hva_to_pfn_returns` (they include the guest's own memory), a byte's `value`, and
`stage2` where `leaves_traced` says that the tracepoints did not see all of it. A run with `read_back` was read from
the tables; else it is what the tracepoints told, which say nothing of a leaf that a fast page fault made writable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, ClassVar

from pfnmap import RecordingGroup, ScenarioRun
from pfnmap.contract.step import Step

from .kvm import Kvm, counted

__all__ = ["KvmRecordings"]

_GUEST_RAM = 0x10000
_GUEST_RAM_AT = "0x7e0000000000"
"""Where the process has the guest's memory: outside the window that is recorded."""

_OPS = {"guest": "kvm.map", "memslot": "kvm.memslot", "dirty_log": "kvm.dirty_log", "kvm_param": "kvm.param"}


class KvmRecordings(RecordingGroup):
    """How recordings of KVM are read and compared."""

    drivers: ClassVar[tuple[str, ...]] = ("kvm", "pci_sysfs")
    fields: ClassVar[Mapping[str, type | tuple[type, ...]]] = {
        "kvm": dict,
        "gpa": str,
        "is_write": bool,
        "len": int,
        "dirty": int,
        "first": (int, NoneType),
        "now": str,
        "trace_overflow": bool,
    }
    artefacts: ClassVar[frozenset[str]] = frozenset({"value", "functions", "exit_reason", "ran_at"})

    def document(self, document: dict[str, Any]) -> Mapping[str, Any]:
        """Give each record the guest's memory, and the step that it hung in."""
        records = document.get("records")
        if not isinstance(records, list):
            return document
        return {**document, "records": [self._record(record) for record in records]}

    def _record(self, record: Any) -> Any:
        if not isinstance(record, dict) or not isinstance(record.get("steps"), list):
            return record
        steps = [made for step in record["steps"] for made in self._steps(step)]
        if isinstance(record.get("pending"), dict):
            steps += self._steps({**record["pending"], "expect": {"result": "HANG"}})
        return {**record, "steps": steps}

    def _steps(self, step: Any) -> list[Any]:
        if not isinstance(step, dict):
            return [step]
        if step.get("op") == "vm_create":
            at = {"addr": _GUEST_RAM_AT, "fixed": True}
            memory = {"id": "guest RAM", "device": None, "length": _GUEST_RAM, "prot": "rw", "shared": False, **at}
            slot = {"slot": 0, "gpa": "0x0", "va": _GUEST_RAM_AT, "length": _GUEST_RAM}
            return [{"op": "mmap", **memory}, {**step, "op": "kvm.memslot", **slot}]
        step = {**step, "op": _OPS.get(step.get("op", ""), step.get("op"))}
        if step["op"] == "kvm.map" and step.get("access") == "x":
            step.update(access="execute", length=self._ran(step))
        expect = step.get("expect")
        if step["op"] == "kvm.memslot" and isinstance(expect, dict) and expect.get("result") == "ENOMEM":
            step["nomem"] = True  # how much memory the machine has is no input of a recording
        if isinstance(expect, dict) and "guest_rdi" in expect:  # the register with the address of the guest's access
            step["expect"] = {**{k: v for k, v in expect.items() if k != "guest_rdi"}, "gpa": expect["guest_rdi"]}
        return [step]

    def _ran(self, step: Mapping[str, Any]) -> Any:
        """How many bytes the guest ran over once it was sent there: until its time was over, which is told by nothing
        but the faults that it took, a page each."""
        expect = step.get("expect")
        kvm = expect.get("kvm") if isinstance(expect, dict) else None
        faults = kvm.get("guest_faults") if isinstance(kvm, dict) else None
        return 4096 * faults - 4095 if isinstance(faults, int) and faults > 1 else step.get("length")

    def normalise(self, run: ScenarioRun, step: Step, expect: dict[str, Any], got: dict[str, Any]) -> None:
        """Compare what a step's `kvm` says with the state of the guest's tables, and the guest's faults."""
        for side in (expect, got):
            if not side.get("dirty"):
                side.pop("first", None)
        if expect.pop("trace_overflow", False):  # counts are too low
            for key in ("faults", "faults_total", "handle_mm_fault", "calls", "follow_returns"):
                expect.pop(key, None)
        if "kvm" not in expect:
            return
        kvm = expect["kvm"]
        complete = "leaves_traced" not in kvm
        traced = not any("read_back" in found for found in kvm.get("stage2", []))
        expect["kvm"] = {
            "guest_faults": kvm.get("guest_faults", 0),
            "leaves": kvm.get("leaves", {}),
            "mmio_sptes": sorted(
                int(s["gpa"], 16) + 4096 * n for s in kvm.get("mmio_sptes", []) for n in range(s["count"])
            ),
            "stage2": self._recorded(run, kvm.get("stage2", [])) if complete else None,
        }
        got["kvm"] = {**self._state(run, complete, traced), "guest_faults": got.get("guest_faults", 0)}

    def _state(self, run: ScenarioRun, complete: bool, traced: bool) -> dict[str, Any]:
        module = run.machine.modules["kvm"]
        assert isinstance(module, Kvm)
        vm = module.vm
        if vm is None:
            return {"leaves": {}, "mmio_sptes": [], "stage2": [] if complete else None}
        shift = vm.kernel.geometry.PAGE_SHIFT
        leaves = vm.stage2.runs(_GUEST_RAM >> shift, 1 << 64 - shift)
        found = [
            (
                leaf.level,
                leaf.gfn << shift,
                leaf.pfn << shift,
                count,
                leaf.writable and not (traced and leaf.untraced),
                leaf.executable,
            )
            for leaf, count in leaves
        ]
        return {
            "leaves": counted(leaves),
            "mmio_sptes": sorted(gfn << shift for gfn in vm.stage2.mmio),
            "stage2": self._folded(run, found) if complete else None,
        }

    def _recorded(self, run: ScenarioRun, stage2: Iterable[Mapping[str, Any]]) -> list[Any]:
        found = ((r["level"], int(r["gpa"], 16), int(r["hpa"], 16), r["count"], r["writable"], r["x"]) for r in stage2)
        return self._folded(run, sorted(found, key=lambda r: r[1]))

    def _folded(self, run: ScenarioRun, found: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Fold runs that continue each other; `hpa` is that of a BAR, or None in memory, where it is no input."""
        bars = [bar for device in run.devices.values() for bar in device.bars.values()]
        folded: list[list[Any]] = []
        for level, gpa, address, count, writable, x in found:
            hpa = address if any(bar.phys <= address < bar.phys + bar.size for bar in bars) else None
            size = run.machine.kernel.geometry.size(level)
            if folded:
                last = folded[-1]
                on = last[3] * size
                follows = None if last[2] is None else last[2] + on
                if [level, gpa, hpa, writable, x] == [last[0], last[1] + on, follows, *last[4:]]:
                    last[3] += count
                    continue
            folded.append([level, gpa, hpa, count, writable, x])
        return folded
