"""What the guest said of a step, as the `expect` of a recording (docs/evidence/RECORDINGS.md)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from errno import errorcode
from typing import Any

from pfnmap_verify.qemu import GuestLost

__all__ = ["RECORDED", "expect_of", "message"]

_VM_FAULT = {0x1: "OOM", 0x2: "SIGBUS", 0x40: "SIGSEGV", 0x100: "NOPAGE", 0x400: "RETRY", 0x800: "FALLBACK"}
_FAULT_FLAG_WRITE, _FAULT_FLAG_VMA_LOCK = 0x1, 0x1000
_FOLLOWS = ("follow_r", "fpte_r")
_BARE = ("walk", "note_tables", "vmas")
"""Ops of which a recording has no faults and no table bytes."""

RECORDED = re.compile(r"bad p|^WARNING:|^BUG:|Oops|vfio_pci_mmap_huge_fault")
"""The messages that a recording holds."""

_POINTER = re.compile(r"\b(bad p(?:gd|4d|ud|md|te)) (?:\(____ptrval____\)|[0-9a-f]+)\(")
_ADDRESS = re.compile(r"(page fault for address:) \S+")
_PID = re.compile(r"\bPID: \d+")


def message(text: str) -> str:
    """Return a kernel message without what differs from boot to boot; the tester counts as the process 1 that ran the
    steps of the first recordings."""
    return _PID.sub("PID: 1", _ADDRESS.sub(r"\1 *", _POINTER.sub(r"\1 *(", text)))


def expect_of(op: str, lines: Sequence[str], functions: Mapping[str, str], page_size: int) -> dict[str, Any]:
    """Return the `expect` of a step from the guest's answer; `functions`: event -> function.

    Raises GuestLost where the guest could not do the step, or lost events.
    """
    by_kind: dict[str, list[list[str]]] = defaultdict(list)
    for line in lines:
        kind, _, rest = line.partition(" ")
        by_kind[kind].append([rest] if kind in ("message", "line") else rest.split())
    for kind in ("unknown", "no", "died", "lost"):
        if kind in by_kind:
            raise GuestLost(f"{op}: {' '.join([kind, *by_kind[kind][0]])}")
    expect: dict[str, Any] = {} if op == "scan" else _result(by_kind["result"][0])
    expect.update(_ADDED.get(op, lambda kinds, page: {})(by_kind, page_size))
    if op in _BARE:
        return expect
    expect["table_bytes"] = int(by_kind["tables"][0][0])
    if op != "scan":
        expect.update(_measured(op, by_kind, functions))
    messages = [message(text) for (text,) in by_kind["message"] if RECORDED.search(text)]
    return {**expect, "messages": messages} if messages else expect


def _result(words: Sequence[str]) -> dict[str, Any]:
    if words == ["ok"]:
        return {"result": "ok"}
    said = dict(word.split("=", 1) for word in words)
    if "word" in said:
        return {"result": said["word"]}
    if "errno" in said:
        return {"result": errorcode.get(int(said["errno"]), said["errno"])}
    return {"result": said["signal"], "si_code": int(said["si_code"]), "si_addr": said["si_addr"]}


def _measured(op: str, kinds: Mapping[str, list[list[str]]], functions: Mapping[str, str]) -> dict[str, Any]:
    faults = [_fault(*words) for words in kinds["fault"]]
    total = int(kinds["faults"][0][0])
    calls = {functions[event]: int(count) for event, count in kinds["call"]}
    found: dict[str, Any] = {"faults": faults, "handle_mm_fault": calls.pop("handle_mm_fault", 0)}
    if total > len(faults):
        found["faults_total"] = total
    guest_faults = calls.pop("kvm_tdp_page_fault", 0)
    if "leaves" in kinds:
        counts = zip(("pud", "pmd", "pte"), map(int, kinds["leaves"][0]), strict=True)
        leaves = {level: count for level, count in counts if count}
        found["kvm"] = {"guest_faults": guest_faults, "leaves": leaves}
    if calls and op != "exit":
        found["calls"] = calls
    returns = {ret: int(count) for event, ret, count in kinds["return"] if event in _FOLLOWS}
    if returns:
        found["follow_returns"] = {"ok": 0, **{_errno_name(ret): count for ret, count in returns.items()}}
    split = {f"thp_split_{level}": int(n) for level, n in zip(("pmd", "pud"), kinds["split"][0], strict=True) if int(n)}
    return {**found, "vmstat": split} if split else found


def _fault(order: str, ret: str, va: str, flags: str) -> dict[str, Any]:
    given = int(flags, 16)
    return {
        "order": int(order),
        "ret": _VM_FAULT.get(int(ret, 16), ret),
        "va": va,
        "write": bool(given & _FAULT_FLAG_WRITE),
        "vma_lock": bool(given & _FAULT_FLAG_VMA_LOCK),
    }


def _errno_name(ret: str) -> str:
    value = int(ret, 16)
    return errorcode.get((1 << 32) - value, ret) if value else "ok"


def _numbers(*names: str) -> Any:
    return lambda kinds, page: {name: int(kinds[name][0][0]) for name in names if name in kinds}


def _texts(*names: str) -> Any:
    return lambda kinds, page: {name: kinds[name][0][0] for name in names if name in kinds}


def _scan(kinds: Mapping[str, list[list[str]]], page: int) -> dict[str, Any]:
    runs = []
    for off, touches, handled, result, *asked in kinds["run"]:
        pairs = [text.split(":") for text in asked]
        per_touch = [[int(order), _VM_FAULT.get(int(ret, 16), ret)] for order, ret in pairs]
        run = {"off": int(off, 16), "touches": int(touches), "per_touch": per_touch, "handle_mm_fault": int(handled)}
        runs.append({**run, "result": result})
    touches, total = kinds["scanned"][0]
    return {"runs": runs, "touches": int(touches), "faults_total": int(total)}


def _move_pages(kinds: Mapping[str, list[list[str]]], page: int) -> dict[str, Any]:
    status = int(kinds["status"][0][0])
    return {"status": errorcode.get(-status, str(status)) if status < 0 else "node"}


def _pagemap(kinds: Mapping[str, list[list[str]]], page: int) -> dict[str, Any]:
    return {"bytes": int(kinds["bytes"][0][0]), "entries": [word for (word,) in kinds["item"]]}


def _pagemap_scan(kinds: Mapping[str, list[list[str]]], page: int) -> dict[str, Any]:
    if kinds["result"][0] != ["ok"]:
        return {}
    regions = [{"start": start, "end": end, "categories": found} for start, end, found in kinds["region"]]
    return {"ret": int(kinds["ret"][0][0]), "walk_end": kinds["walk_end"][0][0], "regions": regions}


def _smaps(kinds: Mapping[str, list[list[str]]], page: int) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for (line,) in kinds["line"][1:]:
        name, _, rest = line.partition(":")
        words = rest.split()
        fields[name] = words if name == "VmFlags" else int(words[0])
    return {"fields": fields} if fields else {}


def _numa_maps(kinds: Mapping[str, list[list[str]]], page: int) -> dict[str, Any]:
    return {"tokens": kinds["line"][0][0].split()[1:]} if kinds["line"] else {}


def _vmas(kinds: Mapping[str, list[list[str]]], page: int) -> dict[str, Any]:
    vmas = []
    for (line,) in kinds["line"]:
        span, perms, offset, _, inode, *_ = line.split()
        start, end = (int(text, 16) for text in span.split("-"))
        file = inode != "0"
        pgoff = int(offset, 16) // page if file else 0
        vmas.append({"start": hex(start), "end": hex(end), "perms": perms, "file": file, "pgoff": pgoff})
    return {"vmas": vmas}


def _guest(kinds: Mapping[str, list[list[str]]], page: int) -> dict[str, Any]:
    if "mmio" in kinds:
        gpa, is_write, length = kinds["mmio"][0]
        return {"gpa": gpa, "is_write": is_write == "1", "len": int(length)}
    return {"guest_rdi": kinds["rdi"][0][0]} if "rdi" in kinds else {}


def _dirty_log(kinds: Mapping[str, list[list[str]]], page: int) -> dict[str, Any]:
    if "dirty" not in kinds:
        return {}
    dirty, first = map(int, kinds["dirty"][0])
    return {"dirty": dirty, "first": first if dirty else None}


_ADDED: Mapping[str, Any] = {
    "access": _numbers("ret"),
    "dma_unmap": _numbers("bytes"),
    "iommufd_unmap": _numbers("bytes"),
    "kvm.dirty_log": _dirty_log,
    "kvm.map": _guest,
    "kvm.param": _texts("now"),
    "mincore": _numbers("pages", "resident"),
    "mmap": _texts("addr"),
    "move_pages": _move_pages,
    "mremap": _texts("addr"),
    "numa_maps": _numa_maps,
    "pagemap": _pagemap,
    "pagemap_scan": _pagemap_scan,
    "pci_memory": _texts("command"),
    "scan": _scan,
    "smaps": _smaps,
    "vmas": _vmas,
}
