"""Verdicts as KTAP and JUnit say the same as the table."""

from __future__ import annotations

from xml.etree import ElementTree

from pfnmap_verify.verdicts import Verdict, as_json, junit, ktap

DIFFERENCE = {"step": 2, "op": "touch", "field": "entry", "real": {"level": "pud"}, "model": {"level": "pte"}}
VERDICTS = [
    Verdict("one", "agree"),
    Verdict("two", "differ", (), [DIFFERENCE], ["vfio-align-fault-to-order: the model lacks it"]),
    Verdict("three", "refused", ["the guest cannot do it"]),
    Verdict("four", "lost", ["no answer for 120 s"]),
    Verdict("five", "oops", ["BUG: unable to handle page fault for address: *"]),
]


def test_ktap_has_a_line_a_record_and_diagnostics_before_it() -> None:
    lines = ktap(VERDICTS)
    assert lines[:2] == ["KTAP version 1", "1..5"]
    assert [line for line in lines[2:] if not line.startswith("# ")] == [
        "ok 1 one",
        "not ok 2 two",
        "ok 3 three # SKIP",
        "not ok 4 four",
        "not ok 5 five",
    ]
    assert "# vfio-align-fault-to-order: the model lacks it" in lines


def test_junit_counts_failures_errors_and_skips() -> None:
    root = ElementTree.fromstring(junit(VERDICTS, 12.34, "pfnmap verify 6.12.117"))
    assert {key: root.get(key) for key in ("tests", "failures", "errors", "skipped", "time")} == {
        "tests": "5",
        "failures": "2",
        "errors": "1",
        "skipped": "1",
        "time": "12.3",
    }
    kinds = {case.get("name"): [child.tag for child in case] for case in root}
    assert kinds == {"one": [], "two": ["failure"], "three": ["skipped"], "four": ["error"], "five": ["failure"]}


def test_json_gives_both_sides_of_a_difference() -> None:
    document = as_json(VERDICTS)
    assert (document["records"], document["agree"]) == (5, 1)
    assert document["disagree"] == [
        {"id": "two", **DIFFERENCE, "because": ["vfio-align-fault-to-order: the model lacks it"]}
    ]
    assert document["oops"] == [{"id": "five", "messages": ["BUG: unable to handle page fault for address: *"]}]
