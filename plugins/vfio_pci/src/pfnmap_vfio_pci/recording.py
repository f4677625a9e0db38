"""Recordings of group iommufd: maps by address and by dma-buf, of an IOAS with a device attached and without.

What the recorder says in words only is said as steps: each record begins with an IOAS of its own, and goes on with
another where a map is ok that the one before had no room for; the process has the first device's BAR mapped, writable
and read-only, and memory. Not compared: the functions of the IOMMU's driver; how often pages of memory fault and are
mapped, which hangs on how large they are and where they lie (that they do is compared), so here none is huge; the
length field of an unmap that failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pfnmap import RecordingGroup, ScenarioRun
from pfnmap.contract.step import Step

__all__ = ["IommufdRecordings"]

_DEVICE = r"@@INFO dev (\S+) phys (0x[0-9a-f]+) size (\d+) "
_PROBE = r"@@INFO probe (\w+) 0 "
_COMPARED = frozenset(
    {
        *("pin_user_pages_fast", "handle_mm_fault", "iommu_map", "iopt_revoke_notify", "unmap_mapping_range"),
        *("follow_pfnmap_start", "fixup_user_fault", "vfio_pci_mmap_huge_fault"),
    }
)
_WHETHER = ("handle_mm_fault", "iommu_map")
_RENAMED = {"attach": "iommufd_attach", "detach": "iommufd_detach"}
_BAR_VA = 0x1000_0000_0000
_READ_ONLY = "PROT_READ BAR"
_BAR, _BAR0_SIZE, _BAR0_PHYS = 2, 0x1000, 0xFEBF_8000
"""The BAR that is recorded, and the other of the test device, a page (the pat recordings tell where)."""


class IommufdRecordings(RecordingGroup):
    """How recordings of iommufd are read and compared."""

    def document(self, document: dict[str, Any]) -> Mapping[str, Any]:
        """Say as devices and steps what the recorder says in `info` and in notes."""
        info = [line for line in document.get("info", ()) if isinstance(line, str)]
        devices = [_device(n, found) for n, line in enumerate(info) if (found := re.match(_DEVICE, line))]
        machine = document["machine"]
        config = {"PCI_P2PDMA": "y", **machine["config"]}
        traced = {found[1] for line in info if (found := re.match(_PROBE, line))} & _COMPARED
        return {
            **document,
            "devices": devices,
            "machine": {**machine, "config": config},
            "kernel": {**document["kernel"], "traced": sorted(traced)},
            "records": [_record(record, devices) for record in document["records"]],
        }

    def normalise(self, run: ScenarioRun, step: Step, expect: dict[str, Any], got: dict[str, Any]) -> None:
        """Compare whether memory faulted and was mapped, not how often."""
        if step.op == "iommufd_unmap" and expect.get("result") != "ok":
            expect.pop("bytes", None)
        faults = {"handle_mm_fault": got["handle_mm_fault"]} if got.get("handle_mm_fault") else {}
        got["calls"] = {**got.get("calls", {}), **got.get("dma_calls", {}), **faults}
        for side in (expect, got):
            calls = {name: count for name, count in side.get("calls", {}).items() if name in _COMPARED}
            side["calls"] = {name: count if name not in _WHETHER else bool(count) for name, count in calls.items()}


def _device(n: int, found: re.Match[str]) -> dict[str, Any]:
    memory = {"index": _BAR, "size": int(found[3]), "phys": found[2]}
    registers = {"index": 0, "size": _BAR0_SIZE, "phys": hex(_BAR0_PHYS + n * _BAR0_SIZE)}
    return {"name": found[1], "bdf": found[1], "bars": [memory, registers]}


def _record(record: Mapping[str, Any], devices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"op": "iommufd_ioas"}]
    mapped: list[tuple[int, int]] = []
    dma_bufs: list[str] = []
    for n, step in enumerate(record["steps"]):
        ok = step["expect"].get("result") == "ok"
        if step["op"] in ("iommufd_map", "iommufd_map_file") and ok:
            start, end = int(step["iova"], 16), int(step["iova"], 16) + step["length"]
            if any(start < stop and begin < end for begin, stop in mapped):
                steps.append({"op": "iommufd_ioas"})
                mapped = []
            mapped.append((start, end))
        elif step["op"] == "iommufd_unmap" and ok:
            start, end = int(step["iova"], 16), int(step["iova"], 16) + step["length"]
            mapped = [(begin, stop) for begin, stop in mapped if not (start <= begin and stop <= end)]
        steps.append(_step(step, n, devices, dma_bufs))
    return {**record, "thp_enabled": "madvise", "steps": [*_mappings(record["steps"], devices), *steps]}


def _step(step: Mapping[str, Any], n: int, devices: Sequence[Mapping[str, Any]], dma_bufs: list[str]) -> dict[str, Any]:
    made = {**step, "op": _RENAMED.get(step["op"], step["op"])}
    note = step.get("note", "")
    if made["op"] == "pci_memory":
        made.setdefault("device", devices[0]["name"])
    if made["op"] == "dma_buf":
        ranges = [f"{offset}+{length}" for offset, length in step["ranges"]]
        other = devices[1 if note == "other device" else 0]["name"]
        made.update(id=str(n), device=step.get("device", other), ranges=ranges)
        if note.startswith("flags "):
            made["flags"] = int(note.split()[1])
        dma_bufs.append(str(n))
    if made["op"] == "iommufd_map_file":
        named = next((file for word, file in _FILES.items() if word in note), None)
        made["file"] = named or (dma_bufs[-1] if dma_bufs else "memfd")
    return made


_FILES = {"memfd": "memfd", "vfio": "vfio", "-1": "none"}
"""What a note calls a file that is no dma-buf."""


def _mappings(steps: Iterable[Mapping[str, Any]], devices: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the steps that map what a record's addresses lie in."""
    where = {"fixed": True, "shared": True, "device": devices[0]["name"], "bar": _BAR, "offset": 0}
    size = devices[0]["bars"][0]["size"]
    made = [{"op": "mmap", **where, "addr": hex(_BAR_VA), "length": size, "prot": "rw"}]
    memory: dict[int, int] = {}
    for step in steps:
        note, va = step.get("note", ""), int(step.get("va", "0x0"), 16)
        if note.startswith("RAM"):
            memory[va] = max(memory.get(va, 0), min(va + step["length"], _BAR_VA if va < _BAR_VA else 1 << 64) - va)
        elif note.startswith(_READ_ONLY) and not any(row["addr"] == hex(va) for row in made):
            made.append({"op": "mmap", **where, "addr": hex(va), "length": step["length"], "prot": "r"})
    anonymous = {"op": "mmap", "device": None, "fixed": True, "shared": False, "prot": "rw"}
    return made + [{**anonymous, "addr": hex(va), "length": length} for va, length in memory.items()]
