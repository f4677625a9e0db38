"""`pfnmap run` of several scenarios, one after another and in processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SCENARIO = """
[kernel]
release = "6.12.117"

[[device]]
name = "gpu"
bdf = "0000:3b:00.0"
[[device.bar]]
index = 2
size = "1G"
phys = "0x380000000000"

[[step]]
op = "mmap"
id = "m0"
device = "gpu"
bar = 2
length = "4M"
addr = "0x7f0000000000"
fixed = true
prot = "rw"
shared = true

[[step]]
op = "{op}"
va = "m0"
{more}
"""
HOLDS = SCENARIO.format(op="touch", more='access = "read"\nexpect = {result = "ok"}')
FAILS = SCENARIO.format(op="touch", more='access = "read"\nexpect = {result = "SIGBUS"}')
STOPS = SCENARIO.format(op="touch", more='access = "read"\nlength = "4M"').replace("7f0000000000", "7f0000001000")
"""1024 base pages, which take more bytes of page tables than a leaf does."""


@pytest.fixture
def scenarios(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"{name}.toml" for name in ("holds", "fails", "again")]
    for path, text in zip(found, (HOLDS, FAILS, HOLDS), strict=True):
        path.write_text(text)
    return found


def test_each_of_several_scenarios_has_its_document(pfnmap, answer, scenarios):
    document = json.loads(pfnmap("run", *scenarios, "--json").stdout)
    assert [one["file"] for one in document["files"]] == [str(path) for path in scenarios]
    for path, one in zip(scenarios, document["files"], strict=True):
        alone = json.loads(pfnmap("run", path, "--json").stdout)
        assert {**alone, "file": str(path)} == {**one, "schema": "pfnmap-run/1"}


def test_processes_give_what_one_gives_in_the_order_of_the_files(pfnmap, scenarios):
    one, two = (pfnmap("run", *scenarios, "--json", "--trace", "--dump", *jobs) for jobs in ((), ("--jobs", 2)))
    assert one.exit_code == two.exit_code == 1
    assert one.stdout == two.stdout
    assert json.loads(one.stdout)["files"][0]["page_tables"]


def test_a_table_says_what_each_came_to_and_what_did_not_hold(pfnmap, scenarios):
    result = pfnmap("run", *scenarios)
    assert result.exit_code == 1
    rows = [line.split() for line in result.stdout.splitlines() if ".toml " in line]
    assert [row[-3:] for row in rows if row[0] in map(str, scenarios)] == [["2", n, "0"] for n in "010"]
    assert f"{scenarios[1]}: step 1: result: expected SIGBUS, got ok" in result.stdout


def test_a_scenario_that_is_refused_stops_no_other(pfnmap, scenarios):
    scenarios[1].write_text(STOPS)
    result = pfnmap("run", *scenarios, "--limit", "bytes=16K", "--json")
    assert result.exit_code == 3
    files = json.loads(result.stdout)["files"]
    assert [one.get("refused", {}).get("step") for one in files] == [None, 1, None]
    assert pfnmap("run", *scenarios, "--limit", "bytes=16K").exit_code == 3


def test_what_is_wrong_with_a_scenario_is_said_as_of_one(refused, scenarios):
    scenarios[1].write_text("[[step]]\n")
    alone = refused("run", scenarios[1])
    assert refused("run", *scenarios) == refused("run", *scenarios, "--jobs", 2) == alone


@pytest.mark.parametrize("option", ["--trace", "--dump", "--map"])
def test_pictures_are_of_one_scenario(refused, scenarios, option):
    assert "of several" in refused("run", *scenarios, option)
