"""Recordings of a group are read and compared as the group's plugin says."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any, ClassVar

import pytest

from pfnmap import RecordingGroup, ScenarioRun
from pfnmap.contract.step import Step
from pfnmap.errors import BadInput, Refused
from pfnmap.plugins import Registry
from pfnmap.replay import RecordRefused, replay
from pfnmap.scenario import parse_recording


class Clock(RecordingGroup):
    """Recordings that say what the time is after each step."""

    fields: ClassVar[Mapping[str, type]] = {"clock": dict}
    artefacts: ClassVar[frozenset[str]] = frozenset({"host"})

    def document(self, document: dict[str, Any]) -> Mapping[str, Any]:
        """Begin each record a second later."""
        late = {"op": "sleep_ms", "value": 1000}
        records = [{**r, "thp_enabled": "always", "steps": [late, *r["steps"]]} for r in document["records"]]
        return {**document, "devices": [], "records": records}

    def observe(self, run: ScenarioRun, step: Step) -> Mapping[str, Any]:
        """Read the clock."""
        return {"clock": {"ms": run.machine.clock_ms, "step": step.op}}

    def normalise(self, run: ScenarioRun, step: Step, expect: dict[str, Any], got: dict[str, Any]) -> None:
        """Compare whole seconds."""
        for side in (expect, got):
            if "clock" in side:
                side["clock"] = side["clock"]["ms"] // 1000


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry in which a plugin reads the recordings of group "clock"."""
    found = Registry()
    monkeypatch.setattr(found, "names", lambda kind: ["clock"] if kind == "recording" else [])
    load = found.load
    monkeypatch.setattr(found, "load", lambda kind, name: Clock if kind == "recording" else load(kind, name))
    return found


def _document(expect: dict[str, Any], **keys: Any) -> dict[str, Any]:
    step = {"op": "sleep_ms", "value": 1500, "expect": {"result": "ok", **expect}}
    return {
        "schema": "pfnmap-recording/2",
        "group": "clock",
        "machine": {"release": "6.12.117", "config": {}, "cpu": {}},
        "kernel": {"arch": "x86_64", "traced": []},
        "records": [{"id": "one", "steps": [step]}],
        **keys,
    }


def test_the_group_shapes_the_document_and_says_what_is_compared(registry: Registry) -> None:
    document = _document({"clock": {"ms": 2999}, "host": "what it was recorded on"})
    result = replay(parse_recording(document, "f.json", registry), registry)
    assert result.agree == 1
    assert result.fields >= {"clock"}
    assert "host" not in result.fields


def test_a_value_that_the_group_observes_can_disagree(registry: Registry) -> None:
    result = replay(parse_recording(_document({"clock": {"ms": 3000}}), "f.json", registry), registry)
    (found,) = result.disagree
    assert (found.step, found.field, found.expected, found.got) == (1, "clock", 3, 2)


def test_a_key_of_another_group_is_not_compared_in_silence(registry: Registry) -> None:
    result = replay(parse_recording(_document({"memtypes": []}), "f.json", registry), registry)
    (refused,) = result.refused
    assert isinstance(refused, RecordRefused)
    assert "memtypes" in refused.reason


def test_a_field_of_the_group_is_checked_as_it_is_read(registry: Registry) -> None:
    with pytest.raises(BadInput, match=r"f\.json: record one step 1 sleep_ms expect: clock = 'x' is of the wrong kind"):
        parse_recording(_document({"clock": "x"}), "f.json", registry)


def test_a_group_without_a_plugin_is_refused_by_name() -> None:
    with pytest.raises(Refused, match=r"f\.json: recordings of group 'tides': no plugin that can be used reads them"):
        parse_recording(_document({}, group="tides"), "f.json")


@pytest.mark.parametrize("keys", [{"group": 5}, {"group": None}, {"schema": "pfnmap-recording/3"}])
def test_a_document_of_no_group_or_another_schema_is_bad_input(keys: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"^f\.json: "):
        parse_recording(_document({}, **keys), "f.json")


def test_what_an_entry_point_names_must_be_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("clock", "pfnmap.trace:Trace", "pfnmap.recording")
    monkeypatch.setattr("pfnmap.plugins.discovery.entry_points", lambda: EntryPoints([point]))
    with pytest.raises(Exception, match=r"pfnmap\.trace:Trace is no subclass of pfnmap\.RecordingGroup"):
        Registry().load("recording", "clock")
