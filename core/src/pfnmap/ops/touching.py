"""Ops that access memory with the CPU, or look at the tables: touch, scan, walk, note_tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pfnmap.contract.vma import MmStruct
from pfnmap.errors import BadInput
from pfnmap.limits import bounded
from pfnmap.mm.fault import AccessResult, user_access
from pfnmap.mm.touch_pages import Touched, touch_pages
from pfnmap.mm.vm_normal_page import pfn_valid, vm_normal_page, vm_normal_page_pmd, vm_normal_page_pud
from pfnmap.ops.op import Op
from pfnmap.trace import Call, Fault, Message
from pfnmap.vm_flags import VM_PFNMAP

if TYPE_CHECKING:
    from pfnmap.ops.state import RunState

__all__ = ["OPS"]


def _touch(run: RunState, mm: MmStruct, va: int, access: str, length: int = 0) -> dict[str, Any]:
    """Touch a byte or, with `length`, the first byte of every page of so many until one gives a signal."""
    write = _is_write(access)
    if not length:
        return {**_signal(user_access(mm, va, write)), **run.entry(mm, va).as_json()}
    page = run.kernel.geometry.PAGE_SIZE
    if va % page or length % page:
        raise BadInput("touch", f"{va:#x} and {length:#x} are to be whole pages of {page:#x} bytes")
    last, touches = AccessResult("ok"), 0
    for touched in touch_pages(mm, va, va + length, write):
        touches += touched.total
        if isinstance(touched, Touched):
            last = touched.outcome
    return {**_signal(last), "touches": touches, **run.entry(mm, va).as_json()}


def _is_write(access: str) -> bool:
    if access not in ("read", "write"):
        raise BadInput("access", f"{access!r} is neither read nor write")
    return access == "write"


def _signal(outcome: AccessResult) -> dict[str, Any]:
    result: dict[str, Any] = {"result": outcome.result}
    if outcome.si_code is not None:
        result["si_code"] = outcome.si_code
    if outcome.si_addr is not None:
        result["si_addr"] = hex(outcome.si_addr)
    return result


def _scan(run: RunState, mm: MmStruct, start: int, end: int, step: int, access: str) -> dict[str, Any]:
    """Touch every `step` bytes; touches with the same outcome in a row are folded into a run."""
    if step <= 0:
        raise BadInput("scan", "step must be positive")
    runs: list[dict[str, Any]] = []
    messages: list[str] = []
    total = touches = 0
    for va, count, outcome, events in _touched(mm, start, end, step, _is_write(access)):
        per_touch = [[e.order, e.ret] for e in events if isinstance(e, Fault)]
        handled = sum(isinstance(e, Call) and e.function == "handle_mm_fault" for e in events)
        messages += [e.text for e in events if isinstance(e, Message)] * count
        total += len(per_touch) * count
        touches += count
        same = {"per_touch": per_touch, "handle_mm_fault": handled, "result": outcome.result}
        if runs and all(runs[-1][key] == value for key, value in same.items()):
            runs[-1]["touches"] += count
        else:
            runs.append({"off": va - start, "touches": count, **same, "entry": run.entry(mm, va).as_json()["entry"]})
    result: dict[str, Any] = {"runs": runs, "touches": touches, "faults_total": total}
    if messages:
        result["messages"] = messages
    return result


def _touched(mm: MmStruct, start: int, end: int, step: int, write: bool) -> Iterator[Touched]:
    """Touch every `step` bytes; every page of a pfnmap at once, where that can be."""
    vma = mm.vma_lookup(start)
    if step == mm.kernel.geometry.PAGE_SIZE and not start % step and vma is not None and vma.vm_flags & VM_PFNMAP:
        stop = min(end, vma.vm_end)
        for touched in touch_pages(mm, start, stop, write):
            for one in touched.unrolled():
                yield one
                start = one.address + one.pages * step
    bounded("scan", -((start - end) // step), unit="touches")
    for va in range(start, end, step):
        mm.machine.trace.drain()
        outcome = user_access(mm, va, write)
        yield Touched(va, 1, outcome, tuple(mm.machine.trace.events))


def _walk(run: RunState, mm: MmStruct, va: int) -> dict[str, Any]:
    return run.entry(mm, va).as_json()


def _note_tables(run: RunState, mm: MmStruct, va: int) -> dict[str, Any]:
    found = run.entry(mm, va)
    met = {found.level, *(level for level, _ in found.upper)}
    present = {f"{w.name}_table": w.name in met for w in mm.tables.levels[1:]}
    return {**found.as_json(), "present": present}


def _vm_normal_page(run: RunState, mm: MmStruct, va: int) -> dict[str, Any]:
    """Ask which page of RAM the kernel takes the present leaf at an address for: "none",
    "ram", or "device" where it wrongly takes device memory for a page."""
    vma = mm.vma_lookup(va)
    leaf = mm.tables.leaf(va)
    if vma is None or leaf is None:
        raise BadInput("vm_normal_page", f"nothing is mapped at {va:#x}")
    level, (table, index) = leaf
    size = run.kernel.geometry.size(level)
    found = _NORMAL_PAGE[level](vma, max(va & -size, vma.vm_start), table[index])
    return {"page": "none" if found is None else "ram" if pfn_valid(run.machine, found) else "device"}


_NORMAL_PAGE = {"pte": vm_normal_page, "pmd": vm_normal_page_pmd, "pud": vm_normal_page_pud}


OPS = {
    "vm_normal_page": Op(_vm_normal_page, {"va": "address"}),
    "touch": Op(_touch, {"va": "address", "access": "str"}, {"length": "size"}),
    "scan": Op(_scan, {"start": "address", "end": "address", "step": "size", "access": "str"}),
    "walk": Op(_walk, {"va": "address"}),
    "note_tables": Op(_note_tables, {"va": "address"}),
}
