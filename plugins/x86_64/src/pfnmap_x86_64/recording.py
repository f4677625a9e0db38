"""Recordings of group pat: BARs mapped past drivers and by vfio-pci, memory types, memory failure.

Compared besides the common keys: `memtypes`, the lines of /sys/kernel/debug/x86/pat_memtype_list that lie in any BAR,
and PAT's own messages. Not compared: `functions`, which kprobes counted.

All records of a file are of one boot, and what was reserved before a record is no result of its steps: it is taken from
the list after its first step, less what that step itself reserves. `iomem=relaxed` is as if IO_STRICT_DEVMEM were off,
which Debian's kernels have on. The recorded machine's firmware has the MTRRs say write-back by default.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

from pfnmap import RecordingGroup, ScenarioRun
from pfnmap.contract.step import Step

from .pat import Pat

__all__ = ["PatRecordings"]

_PAGE = 4096
_PTRACE_WORD = 8
_FRAME = (1 << 52) - _PAGE
_LINE = r"PAT: \[mem (0x[0-9a-f]+)-(0x[0-9a-f]+)\] (\S+)"
_SCRATCH = "0x7e0000000000"
"""Where the process maps what was mapped before a record: outside the window that is recorded."""


class _Bar(NamedTuple):
    device: str
    number: int
    start: int
    end: int
    bound: bool


class PatRecordings(RecordingGroup):
    """How recordings of memory types are read and compared."""

    drivers: ClassVar[tuple[str, ...]] = ("pci_sysfs",)
    fields: ClassVar[Mapping[str, type | tuple[type, ...]]] = {
        "memtypes": list,
        "pa": str,
        "signal": str,
        "HardwareCorrupted_kB": int,
        "step": str,
    }
    artefacts: ClassVar[frozenset[str]] = frozenset({"functions"})
    messages: ClassVar[tuple[str, ...]] = (r"^x86/PAT: ", r"^ioremap ", r"^Memory failure: ")

    def document(self, document: dict[str, Any]) -> Mapping[str, Any]:
        """Say what is bound by whom, and begin each record with what was reserved before it."""
        devices = [_device(row) for row in document["devices"]]
        bars = [
            _Bar(row["name"], bar["index"], phys, phys + -(-bar["size"] // _PAGE) * _PAGE, "driver" not in row)
            for row in devices
            for bar in row["bars"]
            for phys in (int(bar["phys"], 16),)
        ]
        relaxed = "iomem=relaxed" in document["kernel"].get("cmdline", "")
        machine = document["machine"]
        config = {"IO_STRICT_DEVMEM": "n" if relaxed else "y", **machine["config"]}
        cpu = {"mtrr_write_back": True, **machine["cpu"]}
        return {
            **document,
            "devices": devices,
            "machine": {**machine, "config": config, "cpu": cpu},
            "records": [_record(record, bars) for record in document["records"]],
        }

    def observe(self, run: ScenarioRun, step: Step) -> Mapping[str, Any]:
        """Read pat_memtype_list."""
        pat = run.machine.arch_module
        assert isinstance(pat, Pat)
        spans = [
            (bar.phys & -_PAGE, bar.phys + bar.size) for device in run.devices.values() for bar in device.bars.values()
        ]
        listed = pat.memtypes.entries
        return {"memtypes": [str(e) for e in listed if any(e.start < end and start < e.end for start, end in spans)]}

    def normalise(self, run: ScenarioRun, step: Step, expect: dict[str, Any], got: dict[str, Any]) -> None:
        """Compare of a page of RAM the flags alone, and of faults those that vfio-pci handles: no others are traced."""
        entry = expect.get("entry", {})
        frame = int(entry.get("value", "0x0"), 16) & _FRAME
        bars = [bar for device in run.devices.values() for bar in device.bars.values()]
        if got.get("entry", {}).get("ram") and not any(bar.phys <= frame < bar.phys + bar.size for bar in bars):
            expect["entry"] = {"level": entry["level"], "ram": True, "flags": hex(int(entry["value"], 16) & ~_FRAME)}
        if "faults" in expect:
            got["faults"] = [fault for fault in got["faults"] if not _past_drivers(run, int(fault["va"], 16))]
            got["faults_total"] = len(got["faults"])


def _past_drivers(run: ScenarioRun, va: int) -> bool:
    """Tell whether an address is mapped by a file that gives physical memory, no driver's."""
    vma = run.current.vma_lookup(va)
    return vma is not None and vma.vm_file is not None and vma.vm_file.f_mapping is run.machine.iomem.mapping


def _device(row: Mapping[str, Any]) -> dict[str, Any]:
    """A device without any region of vfio's is bound by nobody; what vfio would say of its BARs is not known."""
    if any(bar["vfio_region_flags"] for bar in row["bars"]):
        return dict(row)
    bars = [{key: value for key, value in bar.items() if key != "vfio_region_flags"} for bar in row["bars"]]
    return {**row, "bars": bars, "driver": "pci_sysfs"}


def _record(record: Mapping[str, Any], bars: Iterable[_Bar]) -> dict[str, Any]:
    steps = [_step(step) for step in record["steps"] if step["expect"].get("result") != "no child"]
    return {**record, "steps": [*_before(steps[0], list(bars)), *steps]}


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step with the ops and arguments that all recordings have; `keep`, which left the recorder's file open,
    changes nothing."""
    step = {key: value for key, value in step.items() if key != "keep"}
    if step["op"] == "proc_mem":
        access = {"r": "proc_mem_read", "w": "proc_mem_write"}[step.pop("access")]
        step.update(op="access", via=access)
    elif step.get("via", "").startswith("ptrace"):
        step["length"] = _PTRACE_WORD
    return step


def _before(first: Mapping[str, Any], bars: list[_Bar]) -> list[dict[str, Any]]:
    """Return the steps that reserve what was reserved before a record: vfio-pci's BARs by mapping them once, what
    earlier mappings left behind as it is."""
    listed = [
        (int(m[1], 16), int(m[2], 16), m[3])
        for line in first["expect"].get("memtypes", ())
        if (m := re.match(_LINE, line))
    ]
    own = _reserved_by(first, bars)
    steps: list[dict[str, Any]] = []
    for start, end, mode in listed:
        if own == (start, end):
            own = None
            continue
        bar = next(bar for bar in bars if bar.start < end and start < bar.end)
        where = {"device": bar.device, "bar": bar.number}
        if bar.bound and (start, end) == (bar.start, bar.end):
            at = {"addr": _SCRATCH, "fixed": True}
            steps.append({"op": "mmap", **where, "length": _PAGE, "prot": "rw", "shared": True, **at})
            steps.append({"op": "munmap", "addr": _SCRATCH, "length": _PAGE})
        else:
            part = {"offset": start - bar.start, "length": end - start, "mode": mode}
            steps.append({"op": "x86_64.memtype_reserve_io", **where, **part})
    return steps


def _reserved_by(step: Mapping[str, Any], bars: Iterable[_Bar]) -> tuple[int, int] | None:
    """Return the range that a mapping past drivers reserves."""
    if step["op"] not in ("res_mmap", "devmem_mmap") or step["expect"].get("result") != "ok":
        return None
    bar = next(bar for bar in bars if (bar.device, bar.number) == (step["device"], step["bar"]))
    start = bar.start + step.get("offset", 0)
    return start, start + -(-step["length"] // _PAGE) * _PAGE
