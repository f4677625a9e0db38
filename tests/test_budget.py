"""What a run may take in all: --limit, and what is told where it is not enough, or somebody has enough."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import pytest

from pfnmap.budget import Budget
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.replay import replay
from pfnmap.report.page_tables import EntryRow, page_table_rows
from pfnmap.scenario import read_recording, read_scenario

RECORDING = Path(__file__).parent / "data" / "recordings" / "iommufd-6.12.117.json.gz"
SCENARIO = """
[kernel]
thp = "never"
[[device]]
name = "gpu"
[[device.bar]]
index = 2
size = "8G"
phys = "0x800000000"
[[step]]
op = "mmap"
id = "m0"
device = "gpu"
bar = 2
length = "8G"
prot = "rw"
shared = true
[[step]]
op = "touch"
va = "m0"
access = "read"
[[step]]
op = "touch"
va = "m0+0x40000000"
access = "read"
"""


@pytest.fixture
def scenario(tmp_path) -> Path:
    path = tmp_path / "s.toml"
    path.write_text(SCENARIO)
    return path


@pytest.mark.parametrize(
    ("limit", "step", "said"),
    [
        ("ops=5", 1, "budget: more than 5 events; --limit ops=N allows more"),
        ("ops=0", 1, "budget: more than 0 events; --limit ops=N allows more"),
        ("seconds=0", 0, "budget: more than 0 seconds; --limit seconds=N allows more"),
        ("bytes=20K", 2, "bytes of page tables, where 20480 are the most that is simulated"),
    ],
)
def test_a_run_ends_where_its_budget_does_and_tells_what_was_done(pfnmap, scenario, limit, step, said):
    result = pfnmap("run", scenario, "--json", "--limit", limit)
    assert result.exit_code == 3
    assert result.stderr.startswith(f"pfnmap: {scenario}: step {step} ")
    assert said in result.stderr
    document = json.loads(result.stdout)
    assert document["refused"]["step"] == step
    assert len(document["steps"]) == step


def test_the_default_admits_a_run(answer, scenario):
    assert len(answer("run", scenario)["steps"]) == 3
    assert len(answer("run", scenario, "--limit", "ops=16M", "--limit", "seconds=60")["steps"]) == 3


@pytest.mark.parametrize(
    ("limit", "said"), [("ops", "not KEY=VAL"), ("op=1", "did you mean 'ops'"), ("ops=x", "not a size")]
)
def test_a_limit_that_is_none_is_bad_usage(refused, scenario, limit, said):
    assert said in refused("run", scenario, "--limit", limit)


def test_each_record_of_a_replay_has_the_whole_budget(root, monkeypatch):
    recording = read_recording(root / "tests/data/recordings/minimal-x86_64-4k-7.3.4.json.gz")
    now = iter(range(0, 1 << 20, 20))
    monkeypatch.setattr("pfnmap.budget.time.monotonic", lambda: next(now))  # all records take far more
    result = replay(recording, budget=Budget(seconds=1000))
    assert (len(result.refused), result.agree) == (0, result.records)


def test_a_replay_refuses_what_its_budget_has_no_room_for(answer):
    (file,) = answer("replay", RECORDING)["files"]
    (bounded,) = answer("replay", RECORDING, "--limit", "ops=20", exit_code=3)["files"]
    assert file["agree"] > bounded["agree"]
    assert bounded["disagree"] == []
    assert bounded["refused"][-1]["op"].endswith(":budget")


INTERRUPTED = """
import os, signal, sys
from pfnmap.cli import main
from pfnmap.run import Run
signal.signal(signal.SIGINT, signal.default_int_handler)
step = Run.step
def stepped(run, one):
    if one.op == "touch":
        os.kill(os.getpid(), signal.SIGINT)
    return step(run, one)
Run.step = stepped
main()
"""


def test_control_c_keeps_what_was_done(process, scenario):
    done = process("run", str(scenario), "--json", code=INTERRUPTED)
    assert done.returncode == 130
    document = json.loads(done.stdout)
    assert [step["op"] for step in document["steps"]] == ["mmap"]
    assert document["interrupted"] == {"step": 1, "op": "touch"}
    assert done.stderr == f"pfnmap: warning: interrupted in {scenario}: step 1 touch\n"


def test_page_tables_are_shown_for_as_long_as_there_is_time_and_the_steps_are_kept(pfnmap, scenario, monkeypatch):
    def slow(mm):
        for row in itertools.repeat(EntryRow("pgd", 0, 0x1067, 1 << 39, 0, True)):
            time.sleep(0.01)
            yield row

    monkeypatch.setattr("pfnmap.report.page_tables.page_table_rows", slow)
    result = pfnmap("run", scenario, "--dump", "--json", "--limit", "seconds=1")
    document = json.loads(result.stdout)
    assert (result.exit_code, len(document["steps"])) == (3, 3)
    reason = "budget: more than 1 seconds; --limit seconds=N allows more"
    assert document["refused"] == {"step": 3, "op": "--dump", "reason": reason}
    assert f"--dump: {reason}" in result.stderr


@pytest.mark.parametrize("prot", ["rw", "none"])
def test_a_full_table_is_one_row_of_the_page_tables_and_a_hole_makes_two(prot, scenario):
    read = read_scenario(str(scenario))
    run = read.boot(Kernel.link("x86_64", ["vfio_pci"], release="6.6.60"))
    mapping = {"device": "gpu", "bar": 2, "length": 1 << 22, "prot": "rw", "shared": True, "addr": 1 << 44}
    steps = [
        Step("mmap", {**mapping, "fixed": True, "id": "m0"}),
        Step("touch", {"va": "m0", "access": "read"}),
        Step("mprotect", {"addr": "m0", "length": 1 << 22, "prot": prot}),
    ]
    for step in steps:
        assert run.step(step).result == "ok"
    leaves = [(row.va, row.count) for row in page_table_rows(run.parent) if not row.table]
    assert leaves == [(1 << 44, 512), ((1 << 44) + (2 << 20), 512)]
    table = next(t for t in run.machine.phys.tables.values() if sum(entry != 0 for entry in t) == 512)
    table[200] = 0
    assert sorted(row.count for row in page_table_rows(run.parent) if not row.table) == [200, 311, 512]
