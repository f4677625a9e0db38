"""Replay agrees with real kernels, and notices every value that differs."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pfnmap.replay import COMPARED, RecordRefused, replay, replay_record
from pfnmap.scenario import parse_recording, read_recording

_MEMORY = 0x2  # of the command register; what else is in it is taken from the file
RECORDINGS = sorted((Path(__file__).parent / "data" / "recordings").glob("*.json.gz"))


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name.removesuffix(".json.gz"))
def test_every_record_agrees_in_every_field(path: Path) -> None:
    result = replay(read_recording(path))
    assert [d.as_json() for d in result.disagree] == []
    assert [r.as_json() for r in result.refused] == []
    assert result.agree == result.records > 0


def _document(name: str) -> dict[str, Any]:
    with gzip.open(next(p for p in RECORDINGS if p.name == name)) as file:
        return json.load(file)


def _flipped(value: Any) -> Any:
    """Return a value of the same kind that differs."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return hex(int(value, 16) ^ 0x1000) if value.startswith("0x") else value + "x"
    if isinstance(value, list):
        return [*value[:-1], _flipped(value[-1])] if value else [{}]
    if isinstance(value, dict):
        if not value:
            return {"x": 1}
        key = next(iter(value))
        return {**value, key: _flipped(value[key])}
    return "x"


def _kinds(document: dict[str, Any]) -> dict[tuple[str, str], tuple[int, int]]:
    """Where each (op, expect key) of a recording first stands: record and step; records that oops are left out."""
    kinds: dict[tuple[str, str], tuple[int, int]] = {}
    for r, record in enumerate(document["records"]):
        if any(step["expect"].get("result") == "OOPS" for step in record["steps"]):
            continue
        chosen = any(s["op"] == "mmap" and not s["fixed"] and s["addr"] == "0x0" for s in record["steps"])
        for s, step in enumerate(record["steps"]):
            for key in step["expect"]:
                # Where the kernel chose the address, tables outside the window make some fields say nothing.
                if not chosen or key not in ("table_bytes", "present", "entry", "upper", "addr", "faults"):
                    kinds.setdefault((step["op"], key), (r, s))
    return kinds


@pytest.mark.parametrize("name", ["x86_64-4k-6.12.117.json.gz", "arm64-4k-6.12.117-n1.json.gz"])
def test_a_flipped_value_of_each_kind_of_expect_field_is_a_disagreement(name: str) -> None:
    document = _document(name)
    kinds = _kinds(document)
    kernel = parse_recording(document, name).link()
    assert len(kinds) > 60
    for (op, key), (r, s) in kinds.items():
        flipped = copy.deepcopy(document)
        expect = flipped["records"][r]["steps"][s]["expect"]
        wrong = {"messages": ["bad pud"], "command": hex(int(expect.get("command", "0x0"), 16) ^ _MEMORY)}
        expect[key] = wrong.get(key) or _flipped(expect[key])
        flipped["records"] = [flipped["records"][r]]
        recording = parse_recording(flipped, name)
        outcome = replay_record(kernel, recording, recording.records[0], set())
        assert not isinstance(outcome, RecordRefused)
        assert any(d.step == s and d.field == key for d in outcome), (op, key)


def test_the_fields_that_are_compared_are_reported() -> None:
    result = replay(read_recording(RECORDINGS[0].parent / "x86_64-4k-6.12.117.json.gz"))
    assert result.fields >= {"result", "faults", "handle_mm_fault", "table_bytes", "entry", "upper", "calls", "vmas"}
    assert result.fields <= set(COMPARED)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"op": "mmmap"}, "did you mean 'mmap'"),
        ({"lenght": 4096}, "did you mean 'length'"),
        ({"device": "bar9G"}, "bar9G"),
        ({"expect": {"resutl": "ok"}}, "resutl"),
    ],
)
def test_a_record_that_cannot_be_read_is_refused_by_itself(change: dict[str, Any], said: str) -> None:
    document = _document("x86_64-4k-6.12.117.json.gz")
    document["records"] = document["records"][:2]
    document["records"][0]["steps"][0].update(change)
    result = replay(parse_recording(document, "f.json"))
    assert (result.records, result.agree) == (2, 1)
    (refused,) = result.refused
    assert refused.id == document["records"][0]["id"]
    assert refused.reason.startswith("f.json: record ") or refused.reason.startswith("unknown ")
    assert "step 0" in refused.reason
    assert said in refused.reason


def test_how_a_step_was_recorded_changes_nothing() -> None:
    document = _document("x86_64-4k-6.12.117.json.gz")
    document["records"] = document["records"][:1]
    for step in document["records"][0]["steps"]:
        step.update(may_hang=True, note="under a time limit")
    assert replay(parse_recording(document, "f.json")).agree == 1


def test_an_address_outside_every_vma_is_a_result_not_an_error() -> None:
    document = _document("x86_64-4k-6.12.117.json.gz")
    step = {
        "op": "touch",
        "va": "0x170000000000",
        "access": "read",
        "expect": {"result": "SIGSEGV", "si_code": 1, "si_addr": "0x170000000000", "faults": []},
    }
    document["records"] = [{"id": "nowhere", "thp_enabled": "always", "steps": [step]}]
    assert replay(parse_recording(document, "f.json")).agree == 1


def test_an_entry_that_a_run_of_a_scan_does_not_tell_is_not_compared() -> None:
    document = _document("x86_64-4k-6.12.117.json.gz")
    record = next(r for r in document["records"] if any(len(s["expect"].get("runs", "")) > 1 for s in r["steps"]))
    document["records"] = [record]
    first, second, *_ = next(s["expect"]["runs"] for s in record["steps"] if len(s["expect"].get("runs", "")) > 1)
    del first["entry"]
    assert replay(parse_recording(document, "f.json")).agree == 1
    second["entry"]["value"] = "0x1"
    assert replay(parse_recording(document, "f.json")).agree == 0
