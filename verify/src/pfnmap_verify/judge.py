"""Verdicts on what a session recorded, and the shortest program that still differs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pfnmap.plugins import Registry
from pfnmap.scenario import parse_recording
from pfnmap_verify.compare import compare, reasons
from pfnmap_verify.draw import shrink
from pfnmap_verify.recorder import Program
from pfnmap_verify.session import Session, run_session
from pfnmap_verify.verdicts import Verdict

__all__ = ["judged", "shrunk"]

_EXPLAINED = 3
"""Records that differ whose reason is looked for."""


def shrunk(
    session: Session, programs: Sequence[Program], verdicts: Sequence[Verdict], registry: Registry
) -> list[Verdict]:
    """Return the verdicts with that on the first program that differs told of its shortest form that still does."""
    first = next((verdict for verdict in verdicts if verdict.outcome == "differ"), None)
    if first is None:
        return list(verdicts)
    told: dict[str, Verdict] = {}

    def differing(candidates: Sequence[Program]) -> list[str]:
        again = session.anew()
        if (error := run_session(again, candidates)) is not None:
            raise error
        differ = {verdict.id: verdict for verdict in judged(again, registry) if verdict.outcome == "differ"}
        told.update({_text(one.steps): differ[one.id] for one in candidates if one.id in differ})
        return list(differ)

    program = next(program for program in programs if program.id == first.id)
    found = shrink(program, first.differences[0]["step"], differing)
    steps = [json.dumps(step) for step in found.steps]
    short = told.get(_text(found.steps), first)
    lines = [f"{len(steps)} steps that still differ:", *steps]
    return [replace(short, id=first.id, lines=lines) if verdict is first else verdict for verdict in verdicts]


def _text(steps: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(list(steps))


def judged(session: Session, registry: Registry) -> list[Verdict]:
    """Compare what was recorded; what was not recorded is a verdict as well."""
    verdicts = [Verdict(f.id, "refused" if f.refused else "lost", [f.reason]) for f in session.failures]
    if not session.records:
        return verdicts
    recording = parse_recording(session.document(), "the kernel")
    spec, own = session.subject.spec, session.subject.own_spec
    explained = 0
    for comparison in compare(session.kernel, recording, spec.thp):
        record = comparison.record
        if comparison.outcome in ("refused", "unwitnessed"):
            verdicts.append(Verdict(record.id, "refused", [comparison.reason]))
            continue
        because: list[str] = []
        if comparison.outcome == "differ" and explained < _EXPLAINED:
            explained += 1
            because = reasons(spec, own, recording, comparison, registry)
        differences = [
            {"step": d.step, "op": record.steps[d.step].op, "field": d.field, "real": d.expected, "model": d.got}
            for d in comparison.differences
        ]
        unexpected = [d for d in differences if d["field"] == "result" and d["real"] == "OOPS"]
        lines = record.steps[unexpected[0]["step"]].expect.get("messages", []) if unexpected else []
        verdicts.append(Verdict(record.id, "oops" if unexpected else comparison.outcome, lines, differences, because))
    return verdicts
