"""Real page tables of mappings, put together and beside what the plan says of the same mapping."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pfnmap.contract.entry import Level
from pfnmap.contract.module import Driver
from pfnmap.contract.plan import LEAF_LEVELS, Request
from pfnmap.errors import BadInput, Refused
from pfnmap.kernel import Kernel
from pfnmap.plan import MappingPlan, plan
from pfnmap.plugins import Registry, calling
from pfnmap_tables.processes import Resource, Vma, is_pci, resources, vmas
from pfnmap_tables.target import Target
from pfnmap_tables.walk import Run, Walk, walk

__all__ = ["Compared", "Difference", "compared", "decoded", "differences"]

_SIZES: Final = {level: n for n, level in enumerate(LEAF_LEVELS)}


class Difference(NamedTuple):
    """A range where the tables are otherwise than planned: what the kernel has ("none", or a level), what is planned,
    and the likely reason."""

    va: int
    length: int
    kernel: str
    plan: str
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return it in the form that `tables --json` prints."""
        return {**self._asdict(), "va": hex(self.va)}


class Compared(NamedTuple):
    """A mapping: its real tables, the BAR that they map (None: nothing tells), its plan (None: not without the BAR),
    and whether they changed while they were read."""

    vma: Vma
    device: str | None
    bar: int | None
    runs: tuple[Run, ...]
    table_bytes: int
    unreadable: int
    plan: MappingPlan | None
    differs: tuple[Difference, ...]
    unstable: bool

    def counts(self) -> dict[str, int]:
        """Return how many leaves there are of each level."""
        found: dict[str, int] = dict.fromkeys(reversed(LEAF_LEVELS), 0)
        for run in self.runs:
            found[run.level] = found.get(run.level, 0) + run.count
        return found

    def as_json(self, kernel: Kernel) -> dict[str, Any]:
        """Return it in the form that `tables --json` prints."""
        planned = self.plan
        return {
            "pid": self.vma.pid,
            "va": hex(self.vma.start),
            "length": self.vma.end - self.vma.start,
            "device": self.device,
            "bar": self.bar,
            "offset": self.vma.part.offset,
            "runs": [_run(run, kernel) for run in self.runs],
            "counts": self.counts(),
            "table_bytes": self.table_bytes,
            "unreadable_tables": self.unreadable,
            "plan": planned and _planned(planned),
            "differs": [one.as_json() for one in self.differs],
            "unstable": self.unstable,
        }


def compared(
    target: Target, kernel: Kernel, registry: Registry, pid: int | None, tell: Callable[[str], None]
) -> list[Compared]:
    """Return the mappings of BARs of one process or of all; `tell` is told what cannot be read.

    Raises BadInput for a process that is not there.
    """
    drivers = {name: one for name, one in kernel.drivers.items() if isinstance(one, Driver)}
    found = list(vmas(target.program, drivers, kernel.has, kernel.geometry.PAGE_SIZE, pid, tell))
    ranges = resources(target.program)
    return [_compared(target, kernel, registry, vma, ranges) for vma in found]


def _compared(target: Target, kernel: Kernel, registry: Registry, vma: Vma, ranges: Sequence[Resource]) -> Compared:
    seen = walk(target.program, kernel, vma.pgd, vma.start, vma.end)
    unstable = target.live and walk(target.program, kernel, vma.pgd, vma.start, vma.end).runs != seen.runs
    bar, index = _bar(vma, seen, ranges)
    planned = None if bar is None else _plan(kernel, registry, vma, bar)
    differs = tuple(differences(vma, seen.runs, planned)) if planned is not None else ()
    return Compared(
        vma, bar.name if bar else None, index, seen.runs, seen.table_bytes, seen.unreadable, planned, differs, unstable
    )


def _planned(plan: MappingPlan) -> dict[str, Any]:
    blocked = plan.as_json()["blocked"]
    return {"counts": dict(plan.costs.counts), "table_bytes": plan.costs.table_bytes, "blocked": blocked}


def _run(run: Run, kernel: Kernel) -> dict[str, Any]:
    return {
        "va": hex(run.va),
        "length": run.length,
        "level": run.level,
        "count": run.count,
        "entry": hex(run.entry),
        **decoded(kernel, run.level, run.entry),
    }


def _bar(vma: Vma, seen: Walk, ranges: Sequence[Resource]) -> tuple[Resource | None, int | None]:
    """Return the BAR that a mapping is of, and its index: what its file says, or by a physical address that it maps."""
    index, phys = vma.part.bar, next((run.phys for run in seen.runs), vma.part.phys)
    if index is not None and index < len(vma.bars):
        return vma.bars[index], index
    if phys is None:
        return None, index
    for n, bar in enumerate(vma.bars):
        if phys in bar:
            return bar, n
    holding = [one for one in ranges if phys in one and is_pci(one.name)]
    return min(holding, key=lambda one: one.size, default=None), index


def _plan(kernel: Kernel, registry: Registry, vma: Vma, bar: Resource) -> MappingPlan | None:
    offset = vma.part.offset if vma.part.offset is not None else (vma.part.phys or bar.start) - bar.start
    request = Request(
        vma.part.bar or 0,
        bar.start,
        bar.size,
        device=bar.name,
        offset=offset,
        length=vma.end - vma.start,
        va=vma.start,
        driver=vma.driver,
    )
    try:
        return plan(kernel, [request], registry=registry).mappings[0]
    except (BadInput, Refused):
        return None


def differences(vma: Vma, runs: Sequence[Run], planned: MappingPlan) -> Iterator[Difference]:
    """Yield where the two are not the same, neighbours of one kind together."""
    have: list[tuple[int, int, str]] = []
    at = vma.start
    for run in runs:
        if run.va > at:
            have.append((at, run.va, "none"))
        have.append((max(run.va, at), run.va + run.length, run.level))
        at = run.va + run.length
    if at < vma.end:
        have.append((at, vma.end, "none"))
    want = [(run.va, run.end, str(run.level)) for run in planned.runs]
    held: Difference | None = None
    for start, end, real, level in _overlaps(have, want):
        if real == level:
            continue
        one = Difference(start, end - start, real, level, _why(real, level))
        if held is not None and held.va + held.length == start and held[2:] == one[2:]:
            held = held._replace(length=held.length + one.length)
            continue
        if held is not None:
            yield held
        held = one
    if held is not None:
        yield held


def _overlaps(
    have: Sequence[tuple[int, int, str]], want: Sequence[tuple[int, int, str]]
) -> Iterator[tuple[int, int, str, str]]:
    n = 0
    for start, end, real in have:
        while n < len(want) and want[n][1] <= start:
            n += 1
        for low, high, level in want[n:]:
            if low >= end:
                break
            yield max(start, low), min(end, high), real, level


def _why(real: str, level: str) -> str:
    if real == "none":
        return "not touched yet, or zapped since (decode off, a split that dropped the leaf)"
    if _SIZES.get(real, -1) < _SIZES.get(level, -1):  # type: ignore[call-overload]
        return "touched in the middle first, split, or filled with smaller entries before; or an older release"
    return "larger than planned: the kernel is not the one that was planned for"


def decoded(kernel: Kernel, level: Level, entry: int) -> dict[str, Any]:
    """Return what an entry says, by the architecture's ops; what it has no op for is left out."""
    found: dict[str, Any] = {}
    for key, name in _OPS.items():
        op = getattr(kernel.ops, f"{level}_{name}", None)
        if op is None:
            continue
        try:
            value = int(op(entry))
        except Refused:
            continue
        found[key] = hex(value) if key == "prot" else bool(value)
    with calling(kernel.arch.name, "cache_mode()") as gave:
        mode = gave(kernel.arch.cache_mode(level, entry), str | None)
    if mode is not None:
        found["cache_mode"] = mode
    return found


_OPS: Final[Mapping[str, str]] = {
    "special": "special",
    "writable": "write",
    "dirty": "dirty",
    "young": "young",
    "prot": "pgprot",
}
