"""A model that is another kernel differs from what 6.12.117 did, and the words say which change it is.

The recording was made by ``pfnmap verify --suite core --record`` of Debian's 6.12.117 (amd64), QEMU 7.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pfnmap.plugins import Registry
from pfnmap.scenario import Recording, read_recording
from pfnmap.spec import KernelSpec
from pfnmap_verify.compare import Comparison, compare, kills, reasons
from pfnmap_verify.machine import DEVICES
from pfnmap_verify.suites import suite

DATA = Path(__file__).parent / "data/core-6.12.117.json.gz"
CPU = {"hw_access_dirty": True, "la57": False, "pdpe1gb": True, "pti": False, "pku": True}
CONFIG = {"TRANSPARENT_HUGEPAGE": "y", "MEM_SOFT_DIRTY": "y"}
OWN = KernelSpec(arch="x86_64", release="6.12.117", cpu=CPU, resolved=CONFIG)


@cache
def recorded() -> Recording:
    return read_recording(DATA)


def compared(spec: KernelSpec, *ids: str) -> list[Comparison]:
    recording = recorded()
    chosen = replace(recording, records=tuple(r for r in recording.records if not ids or r.id in ids))
    return compare(spec.link(), chosen, spec.thp)


def because(spec: KernelSpec, record: str) -> list[str]:
    (comparison,) = compared(spec, record)
    assert comparison.outcome == "differ"
    return reasons(spec, OWN, recorded(), comparison, Registry())


def test_the_model_does_what_the_kernel_did() -> None:
    assert {(c.record.id, c.outcome) for c in compared(OWN) if c.outcome != "agree"} == set()


def test_what_was_recorded_is_the_suite() -> None:
    assert [record.id for record in recorded().records] == [program.id for program in suite("core")]


def test_a_record_without_an_entry_is_not_one_that_agrees() -> None:
    record = recorded().records[0]
    blind = replace(record, steps=record.steps[:1])
    (comparison,) = compare(OWN.link(), replace(recorded(), records=(blind,)))
    assert comparison.outcome == "unwitnessed"


def test_a_missing_change_is_named() -> None:
    spec = replace(OWN, without=("vfio-align-fault-to-order",))
    words = because(spec, "middle.8G.natural.middle_first")
    assert words == ["vfio-align-fault-to-order: the model lacks it, the real kernel acts as if it were there"]


def test_the_thp_knob_is_named_with_the_change_that_makes_it_matter() -> None:
    spec = replace(OWN, thp="never", without=("thp-bypass-pfnmap",))
    words = because(spec, "matrix.8G.natural")
    assert "thp-bypass-pfnmap: the model lacks it, the real kernel acts as if it were there" in words
    assert "THP is always in the real kernel, never in the model" in words


def test_of_another_release_the_changes_are_named_that_matter() -> None:
    words = because(replace(OWN, release="6.1.192"), "matrix.2M.natural")
    assert any(word.startswith("huge-pfnmap: the model lacks it") for word in words)
    assert len(words) < 8


@pytest.mark.parametrize(("record", "dies"), [("example.mprotect-page-oops", True), ("matrix.8G.natural", False)])
def test_what_ends_in_an_oops_is_known_before(record: str, dies: bool) -> None:
    program = next(program for program in suite("core") if program.id == record)
    assert kills(OWN.link(), program, DEVICES) is dies


@pytest.mark.parametrize("pointer", ["00000000c1f5e3a2", "ffff888003a1c000", "(____ptrval____)"])
def test_the_pointer_of_a_bad_entry_is_not_compared(pointer: str) -> None:
    (record,) = (r for r in recorded().records if r.id == "example.mremap-bad-pud")
    steps = [replace(s, expect={**s.expect, **_with_pointer(s.expect, pointer)}) for s in record.steps]
    assert any(pointer in text for s in steps for text in s.expect.get("messages", ()))
    chosen = replace(recorded(), records=(replace(record, steps=tuple(steps)),))
    assert [c.outcome for c in compare(OWN.link(), chosen)] == ["agree"]


def _with_pointer(expect: Mapping[str, Any], pointer: str) -> dict[str, Any]:
    return {"messages": [t.replace("*(", f"{pointer}(") for t in expect["messages"]]} if "messages" in expect else {}
