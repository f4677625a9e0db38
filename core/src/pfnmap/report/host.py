"""A host's answer as text: what the host is, then a block a process, then what could not be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from pfnmap.report.plan_table import costs_row
from pfnmap.report.text import Table, Text
from pfnmap.sizes import format_size

if TYPE_CHECKING:
    from pfnmap.plan import Advice, MappingPlan
    from pfnmap.survey import Row, Survey, VmPte

__all__ = ["render_host"]

_COLUMNS: Final = ("mapping", "leaves", "faults", "tables", "DMA cold", "DMA warm")


def render_host(found: Survey) -> list[Text | Table]:
    """Return what `pfnmap host` prints below its heading, in order."""
    parts: list[Text | Table] = [Text(line) for line in _about(found)]
    for pid in found.pids:
        parts += _process(found, pid)
    if not found.rows:
        parts.append(Text("\nNo process maps a BAR that could be looked into", "bold"))
    parts += [Text(f"\nwarning: {warning}", "bold yellow") for warning in found.warnings]
    parts += [Text(f"not planned: {one.device or ''} {one.reason}") for one in found.skipped]
    if found.missing:
        parts.append(Text("\nNot read, and what it would have told", "bold"))
        parts += [Text(f"{one.what}: {one.why}; {one.would_tell}", "dim", 2) for one in found.missing]
    return parts


def _about(found: Survey) -> Iterable[str]:
    host = found.host
    if host.distribution:
        yield f"distribution: {host.distribution}"
    if host.cpuinfo:
        model = host.cpuinfo.get("model name", "not named")
        yield f"CPU: {model}{f', {host.virtualization}' if host.virtualization else ''}"
    if host.parameters:
        yield f"booted with {' '.join(host.parameters)}"
    yield f"IOMMU: {', '.join(host.iommus) or 'none seen'}"
    bound = [f.device for f in host.functions if f.device.driver in _mapping_drivers(found)]
    yield f"devices: {len(host.functions)} with memory BARs, {len(bound)} of them bound to a driver for user space"


def _mapping_drivers(found: Survey) -> set[str]:
    return {name for driver in found.kernel.drivers.values() for name in getattr(driver, "kernel_names", ())}


def _process(found: Survey, pid: int) -> list[Text | Table]:
    process = found.process(pid)
    vmm = next((one for one in found.vmms if one.pid == pid), None)
    title = Text(f"\nProcess {pid} {process.command}", "bold underline")
    if vmm:
        title = title.append(f"  {vmm.package or f'{vmm.name}, version not known'}", "not underline")
    alike: dict[object, list[Row]] = {}
    for row in found.rows_of(pid):
        one = row.plan
        key = one.bar, one.bar_size, one.offset, one.length, str(one.costs), one.warnings, tuple(_why(one)), row.agree
        alike.setdefault(key, []).append(row)
    groups = list(alike.values())
    parts: list[Text | Table] = [title, Table(_COLUMNS, [_cells(group) for group in groups], _COLUMNS[2:], indent=2)]
    for group in groups:
        parts += [Text(f"{_name(group[0].plan)}: {text}", style, 2) for style, text in _sentences(group)]
    parts += [Text(text, "dim", 2) for text in dict.fromkeys(_devices(group) for group in groups)]
    parts.append(_vmpte(found.vmpte[pid]))
    if pid in found.fixes:
        parts.append(Text(f"fix: {_fix(found.fixes[pid])}", "bold", 2))
    return parts


def _name(one: MappingPlan) -> str:
    size = format_size(one.bar_size)
    part = "" if one.length == one.bar_size else f" {one.offset:#x}+{format_size(one.length)}"
    return f"BAR {one.bar} {size}{part}"


def _cells(group: Sequence[Row]) -> list[Text]:
    one, times = group[0].plan, f"{len(group)} x " if len(group) > 1 else ""
    return [Text(f"{times}{_name(one)}"), *costs_row(one.costs, one.sizes)]


def _sentences(group: Sequence[Row]) -> Iterable[tuple[str, str]]:
    """Say what is wrong with the mappings, and why they are not larger."""
    one = group[0].plan
    if not group[0].agree:
        yield "bold red", "which of its candidates it is of alters the answer; what stands here is the first one's"
    yield from (("bold red", warning) for warning in one.warnings)
    yield from (("", text) for text in _why(one))


def _devices(group: Sequence[Row]) -> str:
    """Say which devices the mappings are of."""
    if any(len(row.attached.candidates) > 1 for row in group):
        devices = dict.fromkeys(device for row in group for device in row.attached.candidates)
        return f"of {', '.join(devices)}; the host does not tell which is of which"
    return f"of {', '.join(row.plan.device or 'a device that sysfs does not show' for row in group)}"


def _why(one: MappingPlan) -> Iterable[str]:
    """Say of each level above that of a run why it is not there, the same for several runs once."""
    said = {
        (row.level, row.detail if len(one.runs) == 1 else row.reason): row.detail
        for row in one.blocked
        if row.reason != "too_small"
    }
    for (level, _), detail in said.items():
        yield f"not {format_size(one.sizes[level])}: {detail}"


def _vmpte(check: VmPte) -> Text:
    numbers = f"plan {format_size(check.plan)}, all else at most {format_size(check.others_at_most)}"
    if check.kernel is not None:
        numbers = f"kernel {format_size(check.kernel)}, {numbers}"
    return Text(f"\n{check.said} ({numbers})", "bold red" if check.agrees is False else "", 2)


def _fix(advice: Advice) -> str:
    return f"{' + '.join(map(str, advice.steps))} ({'; '.join(step.detail for step in advice.steps)})"
