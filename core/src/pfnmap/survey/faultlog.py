"""What a driver's own lines in the kernel's log tell of faults: by device and BAR how many of which order, with which
result, what they cover, and where they contradict the plan.

The lines are rate-limited, all devices together: ten in five seconds, and then a line that says how many were
suppressed, with the next one that is printed (REAL-KERNEL.md; lib/ratelimit.c). Offsets in them are relative to the
vma (FINDINGS F11), so that what is covered is of the vma, taken to be one for each BAR.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pfnmap.contract.fault import VM_FAULT_FALLBACK, VM_FAULT_NOPAGE, vm_fault_name
from pfnmap.contract.mapping import LoggedFault
from pfnmap.contract.plan import LEAF_LEVELS, LeafLevel
from pfnmap.errors import BadInput
from pfnmap.plan.reasons import thp_disabled

if TYPE_CHECKING:
    from pfnmap.host.paste import Line
    from pfnmap.kernel import Kernel
    from pfnmap.recognition import Recognition
    from pfnmap.survey.answer import Row

__all__ = ["BarLog", "FaultLog", "read_log"]

_BURST: Final = 10
_INTERVAL: Final = 5.0
"""dev_dbg_ratelimited: so many lines in so many seconds."""
_SHOWN: Final = 8
"""Contradictions that are told of a BAR."""
_TIME: Final = re.compile(r"\[\s*(\d{1,9}\.\d{1,9})\]")


@dataclass(frozen=True)
class BarLog:
    """The lines about a BAR of a device, in their order."""

    device: str
    bar: int
    faults: Sequence[LoggedFault]

    def counts(self) -> list[tuple[int, str, int]]:
        """Return how many lines there are of each order and result, the largest order first."""
        found = Counter((one.order, one.ret) for one in self.faults)
        return [(order, vm_fault_name(ret), count) for (order, ret), count in sorted(found.items(), reverse=True)]

    def filled(self) -> list[tuple[int, int, int]]:
        """Return what was mapped, in pages from the start of the vma: start, end and order, in ascending order; blocks
        of one order that follow one another are one. What was mapped again counts as it was last."""
        last = {one.page_offset: one.order for one in self.faults if one.ret == VM_FAULT_NOPAGE}
        found: list[tuple[int, int, int]] = []
        end = 0
        for start, order in sorted(last.items()):
            if start + (1 << order) <= end:
                continue
            if found and found[-1][1] == start and found[-1][2] == order:
                found[-1] = (found[-1][0], start + (1 << order), order)
            else:
                found.append((max(start, end) if found else start, start + (1 << order), order))
            end = start + (1 << order)
        return found

    def covered(self, page: int) -> int:
        """Return how many bytes were mapped."""
        return sum(end - start for start, end, _ in self.filled()) * page


@dataclass(frozen=True)
class FaultLog:
    """A log: the BARs it has lines about, how many lines were suppressed, and whether all of them are there."""

    bars: tuple[BarLog, ...]
    suppressed: int
    complete: bool

    def as_json(self, kernel: Kernel, rows: Sequence[Row] = ()) -> dict[str, Any]:
        """Return the document that `log --json` prints, without its schema; `rows`: what the host's processes map."""
        return {
            "kernel": kernel.describe(),
            "devices": [
                {
                    "device": one.device,
                    "bar": one.bar,
                    "faults": [{"order": order, "ret": ret, "count": count} for order, ret, count in one.counts()],
                    "covered": one.covered(kernel.geometry.PAGE_SIZE),
                    "complete": self.complete,
                    "suppressed": self.suppressed,
                    "contradicts": list(contradictions(one, kernel, rows)),
                }
                for one in self.bars
            ],
        }


def read_log(lines: Iterable[Line], source: str, asked: Recognition) -> FaultLog:
    """Read a log (dmesg in any form, journalctl, syslog). Raises BadInput for one without a line of a fault."""
    names = [re.escape(name) for driver in asked.drivers.values() for name in driver.log_functions]
    dropped = re.compile(rf"\b(?:{'|'.join(names) or '(?!)'}): (\d{{1,10}}) callbacks suppressed")
    found: dict[tuple[str, int], list[LoggedFault]] = {}
    times: list[float | None] = []
    suppressed = 0
    for _, line in lines:
        if (fault := asked.logged(line)) is not None:
            found.setdefault((fault.device, fault.bar), []).append(fault)
            time = _TIME.search(line)
            times.append(float(time[1]) if time else None)
        elif told := dropped.search(line):
            suppressed += int(told[1])
    if not found:
        raise BadInput(source, "no line of a driver's fault handler; dynamic debug prints them (docs/host.md)")
    bars = tuple(BarLog(device, bar, faults) for (device, bar), faults in sorted(found.items()))
    return FaultLog(bars, suppressed, not suppressed and not _may_end_suppressed(times))


def _may_end_suppressed(times: Sequence[float | None]) -> bool:
    """Tell whether lines may have been suppressed after the last that was printed: that is told only with the next."""
    last = times[-_BURST:]
    if len(last) < _BURST:
        return False
    first, end = last[0], last[-1]
    return first is None or end is None or end - first <= _INTERVAL


def contradictions(one: BarLog, kernel: Kernel, rows: Sequence[Row]) -> Iterator[str]:
    """Yield what of a log cannot be on this kernel, or is otherwise than planned for what the host's processes map."""
    orders = {level: _order(kernel, level) for level in LEAF_LEVELS}
    levels: dict[int, LeafLevel] = {order: level for level, order in orders.items()}
    if not kernel.has("huge-pfnmap"):
        yield f"the handler has such lines with huge-pfnmap alone: {kernel.lacks('huge-pfnmap')}"
        return
    for order in sorted({fault.order for fault in one.faults} - set(levels)):
        known = ", ".join(f"{known} ({level})" for level, known in orders.items())
        yield f"order {order} is of no level of {kernel.arch.name} with {kernel.geometry.PAGE_SIZE} byte pages: {known}"
    for level, order in orders.items():
        mapped = sum(f.order == order and f.ret == VM_FAULT_NOPAGE for f in one.faults)
        if mapped and level != "pte" and not kernel.pfnmap(level):
            yield f"{mapped} faults of order {order} were mapped, and this kernel has no {level} pfnmap"
    huge = sum(fault.order > 0 for fault in one.faults)
    if huge and (why := thp_disabled(kernel, madvised=True)):  # __handle_mm_fault asks thp_vma_allowable_order first
        yield f"{huge} faults of orders above 0 were asked for: {why}"
    mine = [row for row in rows if row.plan.bar == one.bar and one.device in row.attached.candidates]
    if mine:
        yield from _against(one, mine[0], levels, kernel.geometry.PAGE_SIZE)


def _against(one: BarLog, row: Row, levels: Mapping[int, LeafLevel], page: int) -> Iterator[str]:
    """Yield where faults of a BAR came out otherwise than planned."""
    told = 0
    start = row.attached.vma.start
    for fault in one.faults:
        va = start + fault.page_offset * page
        run = next((run for run in row.plan.runs if run.va <= max(va, start) < run.end), None)
        if run is None:
            said = f"{va:#x} is in none of process {row.attached.pid}'s mappings of it"
        elif fault.ret == VM_FAULT_NOPAGE and levels.get(fault.order) != run.level:
            said = f"order {fault.order} was mapped at {va:#x}, where {run.level} leaves are planned"
        elif fault.ret == VM_FAULT_FALLBACK and levels.get(fault.order) == run.level:
            said = f"order {fault.order} fell back at {va:#x}, where {run.level} leaves are planned"
        else:
            continue
        told += 1
        if told <= _SHOWN:
            yield said
    if told > _SHOWN:
        yield f"and {told - _SHOWN} more"


def _order(kernel: Kernel, level: LeafLevel) -> int:
    size = kernel.geometry.size(level)
    return (size // kernel.geometry.PAGE_SIZE).bit_length() - 1
