"""``pfnmap check NAME``, the conformance kit without a test file, and ``--laws``, which needs no plugin."""

from __future__ import annotations

import pytest

LAWS = "core/tests/data/laws"


def test_the_kit_runs_on_an_architecture_and_tells_each_result_with_its_reason(answer):
    document = answer("check", "arm64")
    assert (document["plugin"], document["kind"]) == ("arm64", "arch")
    assert document["counts"].keys() <= {"passed", "not_claimed", "skipped", "expected_failure"}
    machines = {machine["name"]: machine for machine in document["machines"]}
    assert {"6.12.117", "7.3.4 64K", "lpa2=on"} <= machines.keys()
    assert machines["7.3.4 64K"]["kernel"]["page_size"] == 65536
    assert {"pfnmap:pmd", "words", "pmd_mkspecial"} <= set(machines["7.3.4"]["capabilities"])
    assert "pfnmap:pud" not in machines["7.3.4"]["capabilities"]
    results = {(r["machine"], r["check"], r["level"]): r for r in document["results"]}
    passed = results["7.3.4", "special-survives", "pmd"]
    assert passed["status"] == "passed"
    assert passed["reason"]
    unclaimed = results["7.3.4", "special-survives", "pud"]
    assert (unclaimed["status"], unclaimed["detail"]) == ("not_claimed", "pfnmap:pud")


def test_an_expected_failure_is_told_with_its_reason_and_is_no_failure(answer, pfnmap):
    document = answer("check", "x86_64")
    expected = [r for r in document["results"] if r["status"] == "expected_failure"]
    assert {(r["machine"], r["check"], r["level"]) for r in expected} == {
        ("6.12.94", "modify-keeps", "pmd"),
        ("6.12.94", "dirty-survives", "pmd"),
    }
    assert all(r["detail"].startswith("FINDINGS F24") for r in expected)
    assert "F24" in pfnmap("check", "x86_64").stdout


def test_the_kit_runs_on_a_driver(answer, pfnmap):
    document = answer("check", "vfio_pci")
    assert document["kind"] == "driver"
    statuses = {r["status"] for r in document["results"] if r["machine"] == "plain 7.3.4"}
    assert statuses == {"passed"}
    text = pfnmap("check", "vfio_pci", "--verbose").stdout
    assert "unaligned-falls-back" in text
    assert "the posted series lacks" in text


def test_a_plugin_that_nobody_has_is_named_with_the_nearest(refused):
    assert "did you mean 'vfio_pci'" in refused("check", "vfio_pcie")


def test_laws_need_no_plugin_and_find_what_riscv64_loses(answer, root):
    files = [root / LAWS / f"{name}.json.gz" for name in ("riscv64-4k-7.3.4", "x86_64-4k-7.3.4")]
    document = answer("check", "--laws", "--no-plugins", "--vectors", *files, exit_code=1)
    riscv, x86 = document["files"]
    assert (riscv["arch"], riscv["release"], riscv["broken"]) == ("riscv64", "7.3.4", 2)
    assert x86["broken"] == 0
    assert x86["rows"] > 5000
    (broken,) = (law for law in riscv["laws"] if law["broken"])
    assert (broken["law"], broken["level"]) == ("leaf-stays-leaf", "pud")
    assert {one["inputs"][1] for one in broken["examples"]} == {"0x22"}


def test_laws_that_hold_are_a_yes_and_show_on_how_many_rows(pfnmap, root):
    result = pfnmap("check", "--vectors", root / LAWS / "powerpc64-64k-7.3.4.json.gz", "--laws")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    (row,) = (row for row in rows if row[:2] == ["special-after-mkspecial", "pud"])
    assert row[2:4] == ["105", "0"]


@pytest.mark.parametrize("name", ["riscv64-4k-7.3.4"])
def test_verbose_says_why_a_law_was_not_tried(pfnmap, root, name):
    result = pfnmap("check", "--verbose", "--laws", "--vectors", root / LAWS / f"{name}.json.gz")
    assert "no row has both sides of it" in result.stdout
