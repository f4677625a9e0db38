"""What a session found, as a table, as JSON, as KTAP (Documentation/dev-tools/ktap.rst) and as JUnit's XML."""

from __future__ import annotations

import json as _json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

__all__ = ["Verdict", "as_json", "junit", "ktap"]

_WIDTH = 300


@dataclass(frozen=True)
class Verdict:
    """A record's: `outcome` is "agree", "differ", "oops" (one that the model does not have), "lost" (the guest failed)
    or "refused"; `lines` say more, `differences` are step, field, real and model."""

    id: str
    outcome: str
    lines: Sequence[str] = ()
    differences: Sequence[Mapping[str, Any]] = ()
    because: Sequence[str] = ()


def as_json(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return the verdicts' part of the command line's JSON."""
    return {
        "records": len(verdicts),
        "agree": sum(verdict.outcome == "agree" for verdict in verdicts),
        "disagree": [
            {"id": verdict.id, **difference, **({"because": list(verdict.because)} if verdict.because else {})}
            for verdict in verdicts
            for difference in verdict.differences
        ],
        "oops": [{"id": v.id, "messages": list(v.lines)} for v in verdicts if v.outcome == "oops"],
        "lost": [{"id": v.id, "reason": " ".join(v.lines)} for v in verdicts if v.outcome == "lost"],
        "refused": [{"id": v.id, "reason": " ".join(v.lines)} for v in verdicts if v.outcome == "refused"],
    }


def details(verdict: Verdict) -> list[str]:
    """Return what is to be read of a verdict, a line each."""
    lines = [*verdict.lines]
    for difference in verdict.differences:
        lines.append(f"step {difference['step']} {difference['op']}: {difference['field']}")
        lines.append(f"  real  {shown(difference['real'])}")
        lines.append(f"  model {shown(difference['model'])}")
    return [*lines, *verdict.because]


def shown(value: Any) -> str:
    """Return a value as JSON, cut where it is long."""
    text = _json.dumps(value)
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}..."


def ktap(verdicts: Sequence[Verdict]) -> list[str]:
    """Return the verdicts as the lines of KTAP version 1: a refused record is skipped."""
    lines = ["KTAP version 1", f"1..{len(verdicts)}"]
    for number, verdict in enumerate(verdicts, 1):
        lines += [f"# {line}" for line in details(verdict)]
        result = "ok" if verdict.outcome in ("agree", "refused") else "not ok"
        skipped = " # SKIP" if verdict.outcome == "refused" else ""
        lines.append(f"{result} {number} {verdict.id}{skipped}")
    return lines


def junit(verdicts: Sequence[Verdict], seconds: float, name: str) -> str:
    """Return the verdicts as one test suite in JUnit's XML."""
    failed = [verdict for verdict in verdicts if verdict.outcome in ("differ", "oops")]
    lost = [verdict for verdict in verdicts if verdict.outcome == "lost"]
    skipped = [verdict for verdict in verdicts if verdict.outcome == "refused"]
    counts = {"tests": verdicts, "failures": failed, "errors": lost, "skipped": skipped}
    attributes = {key: str(len(value)) for key, value in counts.items()}
    root = ElementTree.Element("testsuite", {"name": name, "time": f"{seconds:.1f}", **attributes})
    for verdict in verdicts:
        case = ElementTree.SubElement(root, "testcase", {"classname": name, "name": verdict.id})
        tag = {"agree": None, "refused": "skipped", "lost": "error"}.get(verdict.outcome, "failure")
        if tag is not None:
            lines = [_printable(line) for line in details(verdict)]
            ElementTree.SubElement(case, tag, {"message": lines[0] if lines else ""}).text = "\n".join(lines)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
