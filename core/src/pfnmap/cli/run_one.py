"""A scenario carried out for ``pfnmap run``: step after step, shown as it goes, and what became of it."""

from __future__ import annotations

import json as _json
from typing import TYPE_CHECKING, Any, NamedTuple

from pfnmap.cli.options import KernelOptions, linked
from pfnmap.cli.terminal import heading, progress_bar, show, styled, warn
from pfnmap.errors import BadInput, Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pfnmap.budget import Budget
    from pfnmap.contract.step import Step
    from pfnmap.contract.vma import MmStruct
    from pfnmap.plugins import Registry
    from pfnmap.report.page_tables import EntryRow
    from pfnmap.run import Run
    from pfnmap.trace import Event

__all__ = ["Ran", "carried_out", "difference"]

_SHOWN_FAULTS = 4
_UNSHOWN = ("result", "upper", "handle_mm_fault", "calls", "runs", "messages")
"""Results that people are not shown, or not in a step's line."""


class Ran(NamedTuple):
    """What became of a scenario: the machine, the document, and what stopped it."""

    run: Run
    document: dict[str, Any]
    stopped: Refused | KeyboardInterrupt | None


def carried_out(
    scenario: str,
    kernel: KernelOptions,
    registry: Registry,
    limit: list[str] | None,
    trace: bool,
    dump: bool,
    *,
    quiet: bool,
) -> Ran:
    """Run a scenario, and show what happens unless `quiet`: the document then has it."""
    from pfnmap.budget import Budget
    from pfnmap.replay import unmet
    from pfnmap.scenario import read_scenario

    budget = Budget.of(limit or ())
    read = read_scenario(scenario)
    if not read.steps:
        raise BadInput(scenario, "no [[step]] in it, so there is nothing to run")
    image = linked(kernel.over(read.kernel), registry)
    run = read.boot(image)
    for name in run.machine.left_out:
        warn(f"{run.left_out[name]}; it is left out")
    document: dict[str, Any] = {"kernel": image.describe(), "steps": [], "failed": []}
    if not quiet:
        heading(document["kernel"])
    budget.watch(run.machine)
    events: list[Event] = []
    run.machine.trace.listen(events.append if quiet else _show_event if trace else _show_complaint)
    stopped: Refused | KeyboardInterrupt | None = None
    tables: list[dict[str, Any]] = []
    with progress_bar(len(read.steps), "steps") as progress:
        for number, step in enumerate(read.steps):
            progress(number)
            if not quiet:
                _show_call(number, step)
            try:
                budget.look()
                result = run.step(step).as_json()
            except Refused as error:
                document["refused"] = {"step": number, "op": step.op, "reason": str(error)}
                stopped = error.placed(step.where)
                break
            except KeyboardInterrupt as error:
                stopped = error
                document["interrupted"] = {"step": number, "op": step.op}
                break
            failed = [
                {"step": number, "field": field, "expected": expected, "got": got}
                for field, expected, got in unmet(step, result)
            ]
            document["failed"] += failed
            document["steps"].append({"op": step.op, "call": _call(step), **result, **_events(events, trace)})
            if quiet and dump and trace and (held := _tables(run, budget)) != tables:
                document["steps"][-1]["page_tables"] = tables = held
            if not quiet:
                _show_result(result)
                for one in failed:
                    show(styled(f"    {difference(one)}", "bold red"))
    try:
        if dump and quiet:
            document["page_tables"] = _tables(run, budget)
        elif dump:
            _show_tables(run, budget)
    except Refused as error:
        document["refused"] = {"step": len(document["steps"]), "op": "--dump", "reason": str(error)}
        stopped = stopped or error.placed("--dump")
    return Ran(run, document, stopped)


def difference(failed: Mapping[str, Any]) -> str:
    """Return what of an `expect` did not hold, in words."""
    return f"{failed['field']}: expected {_text(failed['expected'])}, got {_text(failed['got'])}"


def _events(events: list[Event], trace: bool) -> dict[str, Any]:
    """Return what a step's JSON says of its events, and forget them: all if traced, and which findings they are of."""
    from pfnmap.report.events import event_json

    traced = {"events": [event_json(event) for event in events]} if trace else {}
    findings = list(dict.fromkeys(found for event in events if (found := getattr(event, "finding", ""))))
    events.clear()
    return {**traced, **({"findings": findings} if findings else {})}


def _show_event(event: Event) -> None:
    from pfnmap.report.events import event_line

    show(styled("    " + event_line(event), "cyan"))


def _show_complaint(event: Event) -> None:
    """Show what the kernel logs, an oops, and where it misbehaves without a word: without --trace too."""
    from pfnmap.report.events import event_line
    from pfnmap.trace import Hang, Message, Misbehaviour, Oops

    if isinstance(event, (Misbehaviour, Hang, Message, Oops)):
        show(styled("    " + event_line(event), "yellow"))


def _tables(run: Run, budget: Budget) -> list[dict[str, Any]]:
    """Return the page tables of the parent and the child for JSON."""
    return [{"by": by, **row.as_json()} for by, rows in _rows(run, budget) for row in rows]


def _show_tables(run: Run, budget: Budget) -> None:
    """Show the page tables of the parent and the child."""
    from pfnmap.sizes import format_size

    for by, rows in _rows(run, budget):
        show("", styled(f"page tables of the {by}", "bold"))
        for row in rows:
            what = "table" if row.table else f"{row.count:,} x {format_size(row.size)}"
            show(f"{'  ' * row.depth}{row.level} {row.va:#014x}  {row.value:#018x}  {what}")


def _rows(run: Run, budget: Budget) -> Iterator[tuple[str, Iterator[EntryRow]]]:
    """Yield the parent and the child with the rows of their page tables, for as long as the budget has time."""
    from pfnmap.report.page_tables import page_table_rows

    def timed(mm: MmStruct) -> Iterator[EntryRow]:
        for row in page_table_rows(mm):
            budget.look()
            yield row

    for by, mm in (("parent", run.parent), ("child", run.child)):
        if mm is not None:
            yield by, timed(mm)


def _show_call(number: int, step: Step) -> None:
    """Show a step as it was asked for: ``3 touch va=m0+0x200000 access=write``."""
    who = "" if step.by == "parent" else f"{step.by}: "
    line = styled(f"{number:>3} {who}{step.op} ", "bold")
    show(line.append(styled(_call(step), "")))


def _call(step: Step) -> str:
    """The arguments of a step in words."""
    said: dict[str, Any] = {**step.arguments, **({"at": step.at} if step.at is not None else {})}
    return " ".join(name if value is True else f"{name}={_text(value)}" for name, value in said.items())


def _show_result(result: Mapping[str, Any]) -> None:
    line = styled("    ", "")
    line.append(styled(result["result"], "green" if result["result"] == "ok" else "bold red"))
    for part in _details(result):
        line.append("  ").append(styled(part, ""))
    show(line)
    for run in result.get("runs", ()):
        each = ", ".join(f"{order} {ret}" for order, ret in run["per_touch"]) or "no fault"
        what = "" if run["result"] == "ok" else f"{run['result']}, "
        show(styled(f"    +{run['off']:#x}: {run['touches']:,} x {each}: {what}{_entry(run['entry'])}", ""))


def _details(result: Mapping[str, Any]) -> Iterable[str]:
    """Yield what is worth reading of a step's results."""
    from pfnmap.sizes import format_size

    rest = {key: value for key, value in result.items() if key not in _UNSHOWN}
    faults = rest.pop("faults", [])
    total = rest.pop("faults_total", len(faults))
    if faults:
        shown = ", ".join(f"{fault['order']} {fault['ret']}" for fault in faults[:_SHOWN_FAULTS])
        yield f"faults by order: {shown}" + (f" and {total - _SHOWN_FAULTS} more" if total > _SHOWN_FAULTS else "")
    elif total:
        yield f"{total:,} faults"
    if entry := rest.pop("entry", None):
        yield _entry(entry)
    if moved := rest.pop("table_bytes", 0):
        yield f"tables {'+' if moved > 0 else '-'}{format_size(abs(moved))}"
    for key, value in rest.items():
        yield f"{key} {_text(value)}"


def _entry(entry: Mapping[str, Any]) -> str:
    value = entry.get("value", "RAM")
    return f"{entry['level']} {'empty' if value == '0x0' else value}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _json.dumps(value)
