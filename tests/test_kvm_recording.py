"""Replay of group kvm notices what differs in a guest's tables, and excuses what is the recorder's own."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pfnmap.replay import RecordRefused, replay_record
from pfnmap.scenario import parse_recording

_NAME = "kvm-x86_64-4k-6.12.117.json.gz"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The recording."""
    with gzip.open(Path(__file__).parent / "data" / "recordings" / _NAME) as file:
        found: dict[str, Any] = json.load(file)
    return found


def _outcome(document: dict[str, Any], record: dict[str, Any]) -> Any:
    recording = parse_recording({**document, "records": [record]}, _NAME)
    return replay_record(recording.link(), recording, recording.records[0], set())


def _record(document: dict[str, Any], name: str) -> dict[str, Any]:
    return copy.deepcopy(next(record for record in document["records"] if record["id"] == name))


@pytest.mark.parametrize(
    ("name", "step", "change"),
    [
        ("level.va1G.gpa1G", 3, {"guest_faults": 2}),
        ("level.va1G.gpa1G", 3, {"leaves": {"pmd": 1}}),
        ("level.va1G.gpa1G", 3, {"stage2": []}),
        ("noslot", 3, {"mmio_sptes": []}),
    ],
)
def test_each_part_of_a_steps_kvm_is_compared(
    document: dict[str, Any], name: str, step: int, change: dict[str, Any]
) -> None:
    record = _record(document, name)
    record["steps"][step]["expect"]["kvm"].update(change)
    found = _outcome(document, record)
    assert [d.field for d in found] == ["kvm"]


@pytest.mark.parametrize("key", ["gpa", "hpa", "level", "count", "writable", "x"])
def test_each_part_of_a_run_of_leaves_is_compared(document: dict[str, Any], key: str) -> None:
    record = _record(document, "level.va1G.gpa1G")
    run = record["steps"][3]["expect"]["kvm"]["stage2"][0]
    wrong = {"gpa": "0x4040000000", "hpa": "0x840000000", "level": "pmd", "count": 2, "writable": False, "x": False}
    assert run[key] != wrong[key]
    run[key] = wrong[key]
    assert [d.field for d in _outcome(document, record)] == ["kvm"]


@pytest.mark.parametrize(
    ("name", "step", "key", "value"),
    [
        ("ro.slot", 4, "gpa", "0x4000001000"),
        ("ro.slot", 4, "is_write", False),
        ("ro.slot", 4, "len", 4),
        ("ro.vma", 5, "guest_rdi", "0x4040001000"),
        ("log.from_start", 7, "dirty", 3),
        ("log.from_start", 9, "first", 0),
        ("nx.force", 9, "now", "Y"),
    ],
)
def test_what_an_op_of_kvm_tells_is_compared(
    document: dict[str, Any], name: str, step: int, key: str, value: Any
) -> None:
    record = _record(document, name)
    assert record["steps"][step]["expect"][key] != value
    record["steps"][step]["expect"][key] = value
    found = _outcome(document, record)
    assert [d.field for d in found] == ["gpa" if key == "guest_rdi" else key]


def test_the_step_that_a_record_hangs_in_is_compared(document: dict[str, Any]) -> None:
    record = _record(document, "clear_refs")
    assert _outcome(document, record) == []
    record["pending"]["access"] = "read"  # which would come back
    assert [d.field for d in _outcome(document, record)] == ["result"]


def test_a_machine_without_memory_for_a_slot_refuses_it_last(document: dict[str, Any]) -> None:
    record = _record(document, "errno")
    large = next(n for n, step in enumerate(record["steps"]) if step.get("length") == 8796093018112)
    record["steps"][large]["expect"]["result"] = "ENOMEM"
    record["steps"][-1]["expect"]["result"] = "ok"  # nothing is in its way then
    assert _outcome(document, record) == []
    record["steps"][large - 1]["expect"]["result"] = "ENOMEM"
    record["steps"][2]["expect"]["result"] = "ENOMEM"  # which is EINVAL before memory matters
    assert [(d.step, d.field) for d in _outcome(document, record)] == [(3, "result")]


def test_an_argument_that_is_not_known_refuses_its_record_alone(document: dict[str, Any]) -> None:
    record = _record(document, "noslot")
    record["steps"][3]["encrypted"] = True
    assert isinstance(_outcome(document, record), RecordRefused)


def test_the_leaves_of_an_overflowed_trace_are_compared_and_its_counts_are_not(document: dict[str, Any]) -> None:
    record = _record(document, "scan.16G")
    step = next(step for step in record["steps"] if step["op"] == "guest")["expect"]
    step.update(handle_mm_fault=1, trace_overflow=True)
    assert _outcome(document, record) == []
    step["kvm"]["leaves"] = {"pud": 1}
    assert [d.field for d in _outcome(document, record)] == ["kvm"]
