"""What a run may take in all: --limit, and what is told where it is not enough, or somebody has enough."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pfnmap.budget import Budget
from pfnmap.replay import replay
from pfnmap.scenario import read_recording

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
