"""Recordings of group s390: s390_pci_mmio_read and _write of BARs that sysfs and vfio-pci map, without MIO.

What the recorder says in words only is said as steps: what is mapped at a step's address and how, what was done to it
before, whether memory decode is on. The device is QEMU's virtio-rng-pci: a BAR with an MSI-X table of two vectors, and
virtio's own. Not compared: `data`, which is the device's; `fpr`, which counts what `follow_returns` lists; __zpci_load
and __zpci_store, which zpci_load and zpci_store call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from pfnmap import RecordingGroup, ScenarioRun
from pfnmap.contract.step import Step

__all__ = ["S390Recordings"]

_PROBE = r"@@INFO probe (\w+) 0 "
_REGION = r"@@INFO region (\d) size \d+ flags (\d+)"
_NOT_COMPARED = frozenset({"fpr", "__zpci_load", "__zpci_store"})
_PAGE = 4096
_CAPABILITIES = 8
"""VFIO_REGION_INFO_FLAG_CAPS: of this device, that the BAR has the MSI-X table."""

_MSIX: Final = [{"offset": 0, "length": 32, "sizes": [4, 8]}, {"offset": 0x800, "length": 8, "sizes": [4, 8]}]
"""The table and the pending bits (QEMU's hw/pci/msix.c): accesses of 4 and 8 bytes."""

_NOTHING = ("unmapped address", "after munmap", "null address", "kernel address", "above 8P")
"""Notes of an address at which nothing is mapped."""

_PROTS = {"PROT_READ": "r", "PROT_WRITE": "w", "PROT_NONE": "none"}
_BUFFERS = {"ok": 0x1000_0000, "bad": 0x2000_0000, "null": 0}
_BUFFER_SIZE = 2 * _PAGE
_RETURNS = {"0x0": "ok", "0xffffffea": "EINVAL"}
_DEVICE = "virtio"
_BAR_OF_VFIO, _BAR_OF_SYSFS = 4, 1


class S390Recordings(RecordingGroup):
    """How recordings of the PCI system calls are read and compared."""

    drivers: ClassVar[tuple[str, ...]] = ("pci_sysfs",)
    fields: ClassVar[Mapping[str, type | tuple[type, ...]]] = {"signal": int}
    artefacts: ClassVar[frozenset[str]] = frozenset({"data"})

    def document(self, document: dict[str, Any]) -> Mapping[str, Any]:
        """Say as a device and as steps what the recorder says in `info` and in notes."""
        info = [line for line in document.get("info", ()) if isinstance(line, str)]
        flags = {int(found[1]): int(found[2]) for line in info if (found := re.match(_REGION, line))}
        bars = [
            {
                **bar,
                "vfio_region_flags": flags.get(bar["index"], 0),
                "parts": _MSIX
                if flags.get(bar["index"], 0) & _CAPABILITIES
                else [{"offset": 0, "length": bar["size"], "sizes": [1, 2, 4, 8]}],
            }
            for bar in document["device"]["bars"]
        ]
        machine = document["machine"]
        traced = {found[1] for line in info if (found := re.match(_PROBE, line))} - _NOT_COMPARED
        return {
            **document,
            "devices": [{"name": _DEVICE, "bdf": document["device"]["bdf"], "bars": bars, "driver": "pci_sysfs"}],
            "machine": {**machine, "config": {"PCI": "y", "IO_STRICT_DEVMEM": "y", **machine["config"]}},
            "kernel": {**document["kernel"], "traced": sorted(traced)},
            "records": [_record(record) for record in document["records"]],
        }

    def normalise(self, run: ScenarioRun, step: Step, expect: dict[str, Any], got: dict[str, Any]) -> None:
        """Bring both sides to the same names."""
        if "calls" in expect:
            calls = expect["calls"].items()
            expect["calls"] = {name: count for name, count in calls if name not in _NOT_COMPARED}
        if "ret" in expect:
            got.setdefault("ret", 0 if got["result"] == "ok" else -1)
        if "signal" in expect:
            got["signal"] = {"SIGILL": 4, "SIGBUS": 7, "SIGSEGV": 11}.get(got["result"], 0)


def _record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with the steps that its notes tell of."""
    kind = record["id"].partition(".")[0]
    buffer = {"addr": hex(_BUFFERS["ok"]), "length": _BUFFER_SIZE, "fixed": True, "prot": "rw", "shared": False}
    steps: list[dict[str, Any]] = [{"op": "mmap", "device": None, **buffer}]
    if kind == "vfio":
        steps.append({"op": "vfio_attach", "device": _DEVICE})
    maps = _Maps(kind)
    for step in record["steps"]:
        if step["op"] in ("mmap", "res_mmap"):
            steps += _mmap(step)
            continue
        if step["op"] == "proc_mem_read":
            at = {"op": "access", "via": "proc_mem_read", "va": hex(next(iter(maps.prots))), "length": 8}
            steps.append({**at, "expect": _counted(step["expect"])})
            continue
        steps += maps.before(step)
        steps.append(_step(step))
    return {**record, "thp_enabled": "always", "steps": steps}


def _mmap(step: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """A mapping at an address of the kernel's choice; a BAR that sysfs does not map is the one that virtio-pci has."""
    if step["expect"].get("result") == "EINVAL":
        yield {"op": "request_region", "device": _DEVICE, "bar": step["bar"], "name": "virtio-pci"}
    yield {**step, "device": _DEVICE, "prot": "rw", "shared": True}


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    made = {**step, "expect": _counted(step["expect"])}
    if "buffer" in step:
        made["buffer"] = hex(_BUFFERS[step["buffer"]])
    if step["op"] == "pci_mmio_write":
        made["data"] = "cc" * made.pop("length")
    return made


def _counted(expect: Mapping[str, Any]) -> dict[str, Any]:
    """Return an `expect` whose `follow_returns` are counted, as in every recording."""
    if "follow_returns" not in expect:
        return dict(expect)
    names = [_RETURNS.get(value, value) for value in expect["follow_returns"]]
    return {**expect, "follow_returns": {"ok": 0, **{name: names.count(name) for name in names}}}


class _Maps:
    """What is mapped at the addresses of a record: the protection, by the address of the page."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._decode = True
        self.prots: dict[int, str] = {}

    def before(self, step: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the steps after which a step is what its note says."""
        note, va = step["note"], int(step["va"], 16) & -_PAGE
        steps: list[dict[str, Any]] = []
        if any(words in note for words in _NOTHING):
            if va in self.prots:
                del self.prots[va]
                steps.append({"op": "munmap", "addr": hex(va), "length": _PAGE})
            return steps
        if va not in self.prots:
            self.prots[va] = next((prot for words, prot in _PROTS.items() if words in note), "rw")
            steps.append(self._map(va, self.prots[va], shared="private" not in note))
        changed = re.search(r"after mprotect (\w+)", note)
        if changed and self.prots[va] != changed[1]:
            self.prots[va] = changed[1]
            steps.append({"op": "mprotect", "addr": hex(va), "length": _PAGE, "prot": changed[1]})
        if note.startswith("decode ") and self._decode != (note == "decode on"):
            self._decode = note == "decode on"
            steps.append({"op": "pci_memory", "device": _DEVICE, "enabled": self._decode})
        if "touched" in note and "untouched" not in note:
            steps.append({"op": "touch", "va": hex(va), "access": "write"})
        return steps

    def _map(self, va: int, prot: str, *, shared: bool) -> dict[str, Any]:
        where = {"addr": hex(va), "length": _PAGE, "fixed": True, "prot": prot, "shared": shared}
        if self._kind == "nopfnmap":
            return {**where, "op": "mmap", "device": None, "shared": False}
        if self._kind == "vfio":
            return {**where, "op": "mmap", "device": _DEVICE, "bar": _BAR_OF_VFIO, "offset": 0}
        return {**where, "op": "res_mmap", "device": _DEVICE, "bar": _BAR_OF_SYSFS}
