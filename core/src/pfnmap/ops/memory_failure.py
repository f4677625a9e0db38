"""Ops that report a page frame bad, the hardware's way and the ones that root has: /sys/devices/system/memory,
hwpoison's files in debugfs (mm/memory-failure.c, mm/hwpoison-inject.c, drivers/base/memory.c).

`mf.*` records of 6.12.117 and 7.3.4: of a frame without struct page nothing is signalled and no entry changes.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EIO, ENXIO
from typing import TYPE_CHECKING, Any

from pfnmap.contract.vma import MmStruct
from pfnmap.errors import BadInput, Refused
from pfnmap.mm.memory_failure import Poisoned, memory_failure
from pfnmap.mm.vm_normal_page import pfn_valid
from pfnmap.ops.op import Op, errno_result

if TYPE_CHECKING:
    from pfnmap.ops.state import RunState

__all__ = ["OPS"]


def _memory_failure(
    run: RunState, mm: MmStruct, pfn: int | None = None, device: str | None = None, bar: int = 0, offset: int = 0
) -> dict[str, Any]:
    """The hardware reports a page frame bad: `pfn`, or the one `offset` bytes into a BAR."""
    if device is not None and pfn is None:
        pfn = (run.bar(device, bar).phys + offset) >> run.kernel.geometry.PAGE_SHIFT
    elif device is not None or pfn is None:
        raise BadInput("memory_failure", "either a pfn or a device (with bar and offset) is needed")
    run.machine.poisoned.add(pfn)
    error, poisoned = memory_failure(run.machine, pfn)
    return {**errno_result(error), "signals": _signals(run, poisoned)}


def _signals(run: RunState, poisoned: list[Poisoned]) -> list[dict[str, Any]]:
    names = {run.parent: "parent", run.child: "child"}
    return [{"by": names[p.mm], "si_code": p.si_code, "si_addr": hex(p.si_addr)} for p in poisoned]


def _injected(inject: Callable[[RunState, int], tuple[int, list[Poisoned]]]) -> Op:
    """Return an op that says of a frame that it is bad, though it is not: `pa`, or `offset` bytes into a BAR, the
    device's largest unless `bar` says another."""

    def run_op(
        run: RunState,
        mm: MmStruct,
        device: str | None = None,
        bar: int | None = None,
        offset: int = 0,
        pa: int | None = None,
    ) -> dict[str, Any]:
        if (device is None) == (pa is None):
            raise BadInput("memory failure", "either a pa or a device (with offset) is needed")
        if device is not None:
            bars = run.devices[device].bars if device in run.devices else {}
            largest = max(bars.values(), key=lambda b: b.size).index if bars else 0
            pa = run.bar(device, largest if bar is None else bar).phys + offset
        assert pa is not None
        pfn = pa >> run.kernel.geometry.PAGE_SHIFT
        if pfn_valid(run.machine, pfn):
            raise Refused("memory failure", "a page of RAM")
        error, poisoned = inject(run, pfn)
        signal = "SIGBUS" if poisoned else "none"
        result = {**errno_result(error), "pa": hex(pa), "signal": signal, "HardwareCorrupted_kB": 0}
        return {**result, "signals": _signals(run, poisoned)}

    return Op(run_op, {}, {"device": "str", "bar": "bar", "offset": "size", "pa": "address"})


def _hard_offline(run: RunState, pfn: int) -> tuple[int, list[Poisoned]]:
    """hard_offline_page_store: memory_failure without a machine check behind it."""
    return memory_failure(run.machine, pfn)


def _no_online_page(error: int) -> Callable[[RunState, int], tuple[int, list[Poisoned]]]:
    """What needs a struct page answers a frame without one with an errno of its own, and does nothing."""
    return lambda run, pfn: (error, [])


OPS = {
    "memory_failure": Op(_memory_failure, {}, {"pfn": "int", "device": "str", "bar": "bar", "offset": "size"}),
    "hard_offline": _injected(_hard_offline),
    "soft_offline": _injected(_no_online_page(-ENXIO)),
    "corrupt_pfn": _injected(_no_online_page(-ENXIO)),
    "unpoison_pfn": _injected(_no_online_page(-EIO)),
}
