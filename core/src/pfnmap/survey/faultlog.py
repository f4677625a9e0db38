"""What a driver's own lines in the kernel's log tell of faults: by device and BAR how many of which order, with which
result, what they cover, and where they contradict the plan.

The lines are rate-limited, all devices together: ten in five seconds, and then a line that says how many were
suppressed, with the next one that is printed (REAL-KERNEL.md; lib/ratelimit.c). Offsets in them are relative to the
vma (FINDINGS F11), so that what is covered is of the vma, taken to be one for each BAR.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pfnmap.contract.fault import VM_FAULT_FALLBACK, VM_FAULT_NOPAGE, vm_fault_name
from pfnmap.contract.mapping import LoggedFault
from pfnmap.contract.plan import LEAF_LEVELS, LeafLevel
from pfnmap.errors import BadInput
from pfnmap.plan.reasons import thp_disabled
from pfnmap.sizes import format_size

if TYPE_CHECKING:
    from pfnmap.host.paste import Line
    from pfnmap.host.sysfs import PciFunction
    from pfnmap.kernel import Kernel
    from pfnmap.recognition import Recognition
    from pfnmap.survey.answer import Row

__all__ = ["BarLog", "FaultLog", "Judged", "judge", "read_log"]

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


@dataclass(frozen=True)
class Judged:
    """The lines about a BAR held against a kernel and what a host's processes map: `contradicts`, in words, and
    `filled`, what was mapped by the lines that can be: in pages from the start of the vma, start, end and order of
    blocks, in ascending order; those of one order that follow one another are one."""

    log: BarLog
    filled: Sequence[tuple[int, int, int]]
    contradicts: Sequence[str]

    @property
    def covered(self) -> int:
        """How many pages were mapped."""
        return sum(end - start for start, end, _ in self.filled)


@dataclass(frozen=True)
class FaultLog:
    """A log: the BARs it has lines about, how many lines were suppressed, and whether all of them are there."""

    bars: tuple[BarLog, ...]
    suppressed: int
    complete: bool

    def as_json(self, kernel: Kernel, judged: Sequence[Judged]) -> dict[str, Any]:
        """Return the document that `log --json` prints, without its schema."""
        return {
            "kernel": kernel.describe(),
            "devices": [
                {
                    "device": one.log.device,
                    "bar": one.log.bar,
                    "faults": [{"order": order, "ret": ret, "count": count} for order, ret, count in one.log.counts()],
                    "covered": one.covered * kernel.geometry.PAGE_SIZE,
                    "complete": self.complete,
                    "suppressed": self.suppressed,
                    "contradicts": list(one.contradicts),
                }
                for one in judged
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


def judge(
    log: FaultLog, kernel: Kernel, rows: Sequence[Row] = (), functions: Iterable[PciFunction] = ()
) -> list[Judged]:
    """Hold a log against a kernel; `rows`: what the host's processes map, `functions`: its devices."""
    sizes = {(one.device.bdf, bar.index): bar.size for one in functions for bar in one.device.bars}
    found = []
    for one in log.bars:
        mine = [row for row in rows if row.plan.bar == one.bar and one.device in row.attached.candidates]
        bar = _Bar(kernel, sizes.get((one.device, one.bar)), mine)
        found.append(Judged(one, _filled(one.faults, bar), tuple(_contradictions(one, bar))))
    return found


def _filled(faults: Iterable[LoggedFault], bar: _Bar) -> list[tuple[int, int, int]]:
    """Return `Judged.filled`. What was mapped again counts as it was last."""
    mapped = (one for one in faults if one.ret == VM_FAULT_NOPAGE and not bar.why_not(one))
    last = {one.page_offset: one.order for one in mapped}
    found: list[tuple[int, int, int]] = []
    end = 0
    for start, order in sorted(last.items()):
        if start + (1 << order) <= end:
            continue
        if found and found[-1][1] == start and found[-1][2] == order:
            found[-1] = (found[-1][0], start + (1 << order), order)
        else:
            found.append((max(start, end), start + (1 << order), order))
        end = start + (1 << order)
    return found


class _Bar:
    """A BAR on a kernel: `size` in bytes, where the host tells it, and the `rows` that map it."""

    def __init__(self, kernel: Kernel, size: int | None, rows: Sequence[Row]) -> None:
        self.kernel, self.rows = kernel, rows
        geometry = kernel.geometry
        self.page = geometry.PAGE_SIZE
        self.orders = {level: (geometry.size(level) // self.page).bit_length() - 1 for level in LEAF_LEVELS}
        self.levels: dict[int, LeafLevel] = {order: level for level, order in self.orders.items()}
        self.size = -(-size // self.page) * self.page if size else None

    def why_not(self, fault: LoggedFault) -> str:
        """Return why a block that was mapped, by its line, cannot be whatever maps the BAR; "" where it can."""
        block = self.page << fault.order
        if fault.order not in self.levels:
            known = ", ".join(f"{order} ({level})" for level, order in self.orders.items())
            return f"order {fault.order} is of no level of {self.kernel.arch.name} with {self.page} byte pages: {known}"
        if fault.page_offset < 0:
            return f"order {fault.order} was mapped {-fault.page_offset:#x} pages below the vma, where it falls back"
        if self.size is not None and block > self.size:
            return f"order {fault.order} was mapped, {format_size(block)}, and the BAR has {format_size(self.size)}"
        if self.rows and all(why := [self._why_not_in(row, fault) for row in self.rows]):
            return why[0]
        end = fault.page_offset * self.page + block
        if self.size is not None and end > self.size:
            return f"order {fault.order} was mapped up to {end:#x} of the vma, and the BAR has {format_size(self.size)}"
        if end > self.kernel.geometry.task_size:
            return f"order {fault.order} was mapped up to {end:#x} of the vma, which is more than user space has"
        return ""

    def _why_not_in(self, row: Row, fault: LoggedFault) -> str:
        """Return the same of a mapping that the host has."""
        vma, block = row.attached.vma, self.page << fault.order
        va = vma.start + fault.page_offset * self.page
        if va % block:
            return f"order {fault.order} was mapped at {va:#x}, which is no multiple of {format_size(block)}"
        if va >= vma.end:
            return f"{va:#x} is in none of process {row.attached.pid}'s mappings of it"
        if va + block > vma.end:
            return f"order {fault.order} was mapped at {va:#x}, beyond the end of process {row.attached.pid}'s mapping"
        return ""

    def otherwise(self, fault: LoggedFault) -> str:
        """Return how a fault came out otherwise than planned for each of the mappings, "" where it is as planned."""
        found = ""
        for row in self.rows:
            va = max(row.attached.vma.start + fault.page_offset * self.page, row.attached.vma.start)
            run = next((run for run in row.plan.runs if run.va <= va < run.end), None)
            level = self.levels.get(fault.order)
            if run is None:
                said = f"{va:#x} is in none of process {row.attached.pid}'s mappings of it"
            elif fault.ret == VM_FAULT_NOPAGE and level != run.level:
                said = f"order {fault.order} was mapped at {va:#x}, where {run.level} leaves are planned"
            elif fault.ret == VM_FAULT_FALLBACK and level == run.level:
                said = f"order {fault.order} fell back at {va:#x}, where {run.level} leaves are planned"
            else:
                return ""
            found = said if run or not found else found
        return found


def _contradictions(one: BarLog, bar: _Bar) -> Iterator[str]:
    """Yield what of a log cannot be on this kernel, or is otherwise than planned for what the host's processes map."""
    kernel = bar.kernel
    if not kernel.has("huge-pfnmap"):
        yield f"the handler has such lines with huge-pfnmap alone: {kernel.lacks('huge-pfnmap')}"
        return
    for level, order in bar.orders.items():
        mapped = sum(f.order == order and f.ret == VM_FAULT_NOPAGE for f in one.faults)
        if mapped and level != "pte" and not kernel.pfnmap(level):
            yield f"{mapped} faults of order {order} were mapped, and this kernel has no {level} pfnmap"
    huge = sum(fault.order > 0 for fault in one.faults)
    if huge and (why := thp_disabled(kernel, madvised=True)):  # __handle_mm_fault asks thp_vma_allowable_order first
        yield f"{huge} faults of orders above 0 were asked for: {why}"
    said = Counter(filter(None, (_of_fault(fault, bar) for fault in one.faults)))
    yield from list(said)[:_SHOWN]
    if len(said) > _SHOWN:
        yield f"and {len(said) - _SHOWN} more"


def _of_fault(fault: LoggedFault, bar: _Bar) -> str:
    if fault.order not in bar.levels or fault.ret == VM_FAULT_NOPAGE:
        return bar.why_not(fault) or bar.otherwise(fault)
    return bar.otherwise(fault)
