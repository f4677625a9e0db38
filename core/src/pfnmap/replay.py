"""Replay: run the records of a recording and compare each step with what the real kernel did.

RECORDINGS.md ("What a replay compares") is the rule; its exceptions stand here once each and know nothing of single
records. One more: what the firmware put into a device's command register besides the memory bit is no input of a
recording, and is taken from the first `command` of the device in the file (`pfnmap.scenario`); the memory bit is
compared at each step, and so is that the rest stays as it was.
A step that the model refuses makes its record refused, never agreed; and so does a step that it cannot read, such as
one with an argument that it does not know: a record never stops its file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pfnmap.budget import Budget
from pfnmap.contract.recording import RecordingGroup
from pfnmap.contract.step import Step
from pfnmap.errors import BadInput, PfnmapError, PluginError, Refused, nearest
from pfnmap.kernel import Kernel
from pfnmap.ops.arguments import address_value
from pfnmap.plugins import Registry, calling
from pfnmap.run import Run
from pfnmap.scenario import Record, Recording
from pfnmap.unreproducible import forgive

__all__ = [
    "COMPARED",
    "Disagreement",
    "RecordRefused",
    "ReplayResult",
    "compare_step",
    "replay",
    "replay_record",
    "unmet",
]

_TABLE: Any = Mapping[str, Any]
_NONE_WHEN_ABSENT: Mapping[str, Any] = {"calls": {}, "vmstat": {}, "messages": []}

COMPARED = (
    *("result", "faults", "faults_total", "handle_mm_fault", "table_bytes", "entry", "upper", "calls"),
    *("follow_returns", "vmstat", "vmas", "addr", "si_code", "si_addr", "command", "bytes", "ret", "entries"),
    *("regions", "walk_end", "pages", "resident", "fields", "tokens", "status", "present", "messages", "runs"),
    *("touches", "signals", "page", "killed", "exited"),
)
"""The keys of an `expect` that are compared, besides those of the recording's group."""

_NOT_COMPARED = ("stack", "panic")
_KEYS = frozenset((*COMPARED, *_NOT_COMPARED))
_QUIET_OPS = ("walk", "note_tables", "vmas", "scan", "exit")
"""Ops whose `expect` says nothing of calls; nor does one that does not say either how often the mm was called, because
a call that never ended drowned it."""


@dataclass(frozen=True)
class Disagreement:
    """A field in which a step differs: record id, index of the step, and both values."""

    id: str
    step: int
    field: str
    expected: Any
    got: Any

    def as_json(self) -> dict[str, Any]:
        """Return the row of the command line's JSON."""
        return {
            "id": self.id,
            "step": self.step,
            "field": self.field,
            "expected": self.expected,
            "got": self.got,
        }


@dataclass(frozen=True)
class RecordRefused:
    """A record that the model does not cover: the op, or the part of it ("madvise:partial"), and why."""

    id: str
    op: str
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return the row of the command line's JSON."""
        return {"id": self.id, "op": self.op, "reason": self.reason}


@dataclass
class ReplayResult:
    """What became of a recording's records; `kernel` is what `Kernel.describe` says of the kernel that was linked."""

    file: str
    kernel: Mapping[str, Any]
    records: int = 0
    agree: int = 0
    refused: list[RecordRefused] = field(default_factory=list)
    disagree: list[Disagreement] = field(default_factory=list)
    fields: set[str] = field(default_factory=set)

    def as_json(self) -> dict[str, Any]:
        """Return the file's entry of the command line's JSON."""
        return {
            "file": self.file,
            "kernel": dict(self.kernel),
            "records": self.records,
            "agree": self.agree,
            "refused": [r.as_json() for r in self.refused],
            "disagree": [d.as_json() for d in self.disagree],
            "fields": sorted(self.fields),
        }


def replay(
    recording: Recording,
    registry: Registry | None = None,
    progress: Callable[[int], None] = lambda done: None,
    budget: Budget | None = None,
) -> ReplayResult:
    """Run every record of a recording on the kernel that it says it was, and compare; each within a budget, if there
    is one."""
    kernel = recording.link(registry)
    result = ReplayResult(recording.source, kernel.describe())
    for n, record in enumerate(recording.records):
        result.records += 1
        outcome = replay_record(kernel, recording, record, result.fields, budget)
        if isinstance(outcome, RecordRefused):
            result.refused.append(outcome)
        elif outcome:
            result.disagree.extend(outcome)
        else:
            result.agree += 1
        progress(n + 1)
    return result


def replay_record(
    kernel: Kernel, recording: Recording, record: Record, fields: set[str], budget: Budget | None = None
) -> list[Disagreement] | RecordRefused:
    """Run one record from an empty window; return where it disagrees (in its first such step), or its refusal.

    `fields` collects the names of what was compared.
    """
    try:
        run = Run(kernel, list(recording.devices), image=True, installed=recording.installed)
    except BadInput as error:
        raise error.placed(recording.source) from None
    run.machine.thp = record.thp_enabled
    if budget is not None:
        budget.begin()
        budget.watch(run.machine)
    for n, step in enumerate(record.steps):
        try:
            if budget is not None:
                budget.look()
            run.chosen = _chosen(step)
            got = {**run.step(step).as_json(), **_observed(recording.group, run, step)}
            found = compare_step(step, got, run, recording, record.own_boot, fields)
        except Refused as refusal:
            op = step.op if refusal.what == step.op else f"{step.op}:{refusal.what}"
            return RecordRefused(record.id, op, str(refusal))
        except PluginError:
            raise
        except PfnmapError as failure:
            return RecordRefused(record.id, step.op, str(failure))
        if found:
            return [Disagreement(record.id, n, *difference) for difference in found]
    return []


def _observed(group: RecordingGroup, run: Run, step: Step) -> Mapping[str, Any]:
    with calling(_plugin(group), "observe()") as gave:
        return gave(group.observe(run, step), _TABLE)


def _plugin(group: RecordingGroup) -> str:
    """The package that brings a group."""
    return type(group).__module__.partition(".")[0]


def _chosen(step: Step) -> int | None:
    """The address of a kernel-chosen mapping, which is taken from `expect` (RECORDINGS.md)."""
    if step.op != "mmap" or step.arguments.get("fixed") or "addr" not in step.expect:
        return None
    return address_value(step.expect["addr"], {}, f"{step.where} expect addr")


def compare_step(
    step: Step, got: Mapping[str, Any], run: Run, recording: Recording, own_boot: bool, fields: set[str]
) -> list[tuple[str, Any, Any]]:
    """Return (field, expected, got) of every field in which a step's results differ from its `expect`."""
    group = recording.group
    for key in step.expect:
        if key not in _KEYS and key not in got and key not in (*group.fields, *group.artefacts):
            known = {*_KEYS, *group.fields, *group.artefacts, *got}
            raise BadInput(step.where, f"expect has an unknown key {key!r}{nearest(key, known)}")
    expect = {**step.expect}
    for key in (*_NOT_COMPARED, *group.artefacts):
        expect.pop(key, None)
    if expect.get("result") == "OOPS":
        fields.add("result")
        return [] if got["result"] == "OOPS" else [("result", "OOPS", got["result"])]
    got = dict(got)
    got["calls"] = {name: count for name, count in got.get("calls", {}).items() if name in recording.traced}
    quiet = step.op in _QUIET_OPS or not {"faults", "handle_mm_fault", "calls"} & expect.keys()
    for key, nothing in _NONE_WHEN_ABSENT.items():
        if not quiet or key in expect:
            expect.setdefault(key, nothing)
            got.setdefault(key, nothing)
    for side in (expect, got):
        if side.get("messages"):
            recorded = _recorded(run, group)
            kept = (text for text in side["messages"] if recorded.search(text))
            side["messages"] = [_message(text) for text in kept if own_boot or "WARNING" not in text]
    if "faults" in expect:
        expect.setdefault("faults_total", len(expect["faults"]))
        got.setdefault("faults_total", len(got.get("faults", [])))
    if "runs" in expect:
        got["runs"] = _as_read(expect["runs"], got.get("runs", []))
    _kernel_chosen(step, expect, got, run)
    forgive(run, expect, got)
    with calling(_plugin(group), "normalise()"):
        group.normalise(run, step, expect, got)
    different = []
    for key, expected in expect.items():
        fields.add(key)
        if got.get(key) != expected:
            different.append((key, expected, got.get(key)))
    return different


def unmet(step: Step, got: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (field, expected, got) of every key of a scenario step's `expect` that its results do not meet.

    Only what is named is compared: a table is met by one that has what it names (an empty one by an empty one), a list
    entry by entry, a number by its hex string. Raises BadInput for a key that no step gives.
    """
    found = []
    for key, expected in step.expect.items():
        if key not in got and key not in COMPARED:
            raise BadInput(step.where, f"expect has an unknown key {key!r}{nearest(key, (*COMPARED, *got))}")
        nothing = type(expected)() if isinstance(expected, (dict, list)) else None
        if not _met(expected, got.get(key, nothing)):
            found.append((key, expected, got.get(key)))
    return found


def _met(expected: Any, got: Any) -> bool:
    if isinstance(expected, dict) and isinstance(got, dict):
        return all(key in got and _met(value, got[key]) for key, value in expected.items()) if expected else not got
    if isinstance(expected, list) and isinstance(got, list):
        return len(expected) == len(got) and all(map(_met, expected, got))
    if isinstance(got, str) and isinstance(expected, int):
        return got == hex(expected)
    return bool(expected == got)


_RECORDED = r"bad p|^WARNING:|^BUG:|Oops"
"""The log lines that a recording holds (RECORDINGS.md, `expect.messages[]`), besides those of `Module.log_functions`
and of its group."""


def _recorded(run: Run, group: RecordingGroup) -> re.Pattern[str]:
    functions = (re.escape(name) for module in run.machine.modules.values() for name in module.log_functions)
    return re.compile("|".join((_RECORDED, *functions, *group.messages)))


def _message(text: str) -> str:
    """A message without what is not compared: source line numbers, hashed pointers, all after a function offset."""
    text = re.sub(r"(\.[ch]):\d+", r"\1", text)
    text = re.sub(r"\b(bad p(?:gd|4d|ud|md|te)) (?:\(____ptrval____\)|[0-9a-f*]+)\(", r"\1 *(", text)
    return re.sub(r"\+0x[0-9a-f]+/.*", "", text)


def _as_read(expected: list[dict[str, Any]], got: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out the entries of the runs of a scan whose entry the recorder did not read."""
    unread = {run.get("off") for run in expected if "entry" not in run}
    return [{k: v for k, v in run.items() if k != "entry" or run["off"] not in unread} for run in got]


def _kernel_chosen(step: Step, expect: dict[str, Any], got: dict[str, Any], run: Run) -> None:
    """Leave out what depends on tables that the process has outside the window, where the kernel chose the address.

    There `table_bytes` and `present` are not compared, nor where the walk to an empty entry ends, and a fault list may
    lack the huge orders, from the largest down, that the model asks in vain: their levels have tables already.
    """
    va = next((step.arguments[name] for name in ("va", "start", "addr") if name in step.arguments), None)
    if va is None or step.op == "mmap":
        return
    address = address_value(va, run.names, step.where)
    if not any(start <= address < end for start, end in run.chosen_ranges):
        return
    for key in ("table_bytes", "present"):
        expect.pop(key, None)
    if expect.get("entry", {}).get("value") == "0x0":
        expect.pop("entry")
        expect.pop("upper", None)
    asked, recorded = got.get("faults", []), expect.get("faults")
    lacking = set()
    for order in sorted({f["order"] for f in asked if f["order"]}, reverse=True):
        lacking.add(order)
        if recorded == [f for f in asked if f["order"] not in lacking or f["ret"] != "FALLBACK"] != asked:
            expect["faults"], expect["faults_total"] = asked, got["faults_total"]
