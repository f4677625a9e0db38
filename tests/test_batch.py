"""`--batch`: many machines in a pipe, and `pfnmap fleet`, what they come to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import Future
from itertools import count, islice

import pytest

from pfnmap.batch import CHUNK, Answers, Line, chunks, in_order, lines
from pfnmap.cli import desk
from pfnmap.errors import BadInput
from pfnmap.host import bounded

LINES = [
    {"bar": "256G@0x200000000000", "release": "6.14.0-27-generic", "vmm": "qemu-8.2", "id": "a"},
    {"bar": ["2G", "16M"], "id": ["any", 1]},
    {"bar": "8G", "va": "0x100000000000", "kvm": True},
    {"bar": "1G", "thp": "never", "release": "6.12.94", "page-size": 4096},
]


def written(tmp_path, *lines):
    path = tmp_path / "hosts.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def documents(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_each_line_is_answered_as_the_command_line_answers_it(pfnmap, answer, tmp_path):
    result = pfnmap("plan", "--batch", written(tmp_path, *LINES))
    assert result.exit_code == 0, result.output
    for number, (line, document) in enumerate(zip(LINES, documents(result), strict=True), 1):
        assert document.pop("line") == number
        assert document.pop("id", None) == line.get("id")
        document.pop("warnings")
        asked = {name: value for name, value in line.items() if name != "id"}
        words = [
            word
            for name, value in asked.items()
            for one in (value if isinstance(value, list) else [value])
            for word in ((f"--{name}",) if one is True else (f"--{name}", one))
        ]
        assert document == answer("plan", *words)


def test_lines_that_differ_in_their_bars_are_answered_as_each_by_itself(pfnmap, tmp_path, monkeypatch):
    monkeypatch.setattr(desk, "_KERNELS", 1)
    rests = [{}, {"vmm": "qemu-9.2"}, {"thp": "never", "msix": "0:0x2000:16", "vmm": ["qemu-8.2", "kernel"]}]
    bars = [["16M@0x5000000", "4G@0x200000000"], "16M@0x3f5000000", ["3M@0"], ["16M"]]
    asked = [{**rest, "bar": bar} for bar in bars for rest in rests]
    together = documents(pfnmap("plan", "--batch", written(tmp_path, *asked)))
    for number, (line, document) in enumerate(zip(asked, together, strict=True), 1):
        desk._DESKS.clear()
        [alone] = documents(pfnmap("plan", "--batch", written(tmp_path, line)))
        assert document == {**alone, "line": number}, line


def test_what_a_line_does_not_say_the_command_line_says(pfnmap, tmp_path):
    path = written(tmp_path, {"bar": "1G"}, {"bar": "1G", "release": "6.1.192"})
    releases = [d["kernel"]["release"] for d in documents(pfnmap("plan", "--batch", "--release", "6.12.117", path))]
    assert releases == ["6.12.117", "6.1.192"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x", "not JSON"),
        ("[1]", "an object"),
        ('{"bar": "1G"', "not JSON"),
        ("[" * 100000, "not JSON"),
        ('{"bars": "1G"}', "did you mean 'bar'"),
        ('{"bar": 5}', "list of texts"),
        ('{"bar": "1G", "kvm": "yes"}', "neither true nor false"),
        ('{"bar": "1G", "va": [1]}', "neither a text nor"),
        ('{"bar": "3"}', "not a power of two"),
        ('{"bar": "1G", "release": "nosuch"}', "unknown release"),
        ('{"bar": "1G", "batch": true}', "no option of plan"),
        ("{}", "give --bar"),
    ],
)
def test_broken_line_is_reported_and_the_rest_goes_on(pfnmap, tmp_path, line, said):
    result = pfnmap("plan", "--batch", written(tmp_path, {"bar": "1G"}, line, {"bar": "2M"}))
    assert result.exit_code == 1
    first, broken, last = documents(result)
    assert broken["line"] == 2
    assert said in broken["error"]
    assert "mappings" in first
    assert last["line"] == 3
    assert "1 of 3 lines" in result.stderr


def test_lines_come_from_standard_input_and_empty_ones_are_none(pfnmap):
    result = pfnmap("plan", "--batch", input='\n{"bar": "1G"}\n\n  \n{"bar": "2M"}')
    assert [document["line"] for document in documents(result)] == [1, 2]


def test_line_that_is_too_long_is_broken_and_not_kept(pfnmap, tmp_path, monkeypatch):
    monkeypatch.setattr("pfnmap.batch.LINE", 100)
    result = pfnmap("plan", "--batch", written(tmp_path, {"bar": "1G"}, "x" * 1000, {"bar": "2M"}))
    assert ["error" in document for document in documents(result)] == [False, True, False]


@pytest.mark.parametrize("command", [("plan", "--batch"), ("fleet",)])
def test_an_endless_line_is_not_read_on_and_on(pfnmap, monkeypatch, command):
    monkeypatch.setattr("pfnmap.batch.LINE", 4096)
    result = pfnmap(*command, "/dev/zero")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "/dev/zero: a line of more than 0 MiB" in result.stderr


def test_two_processes_give_the_same_lines_in_the_same_order(pfnmap, tmp_path):
    sizes = [{"bar": f"{1 << n % 20}M", "id": n} for n in range(3 * CHUNK + 5)]
    path = written(tmp_path, *sizes[:20], "broken", *sizes[20:])
    one, two = (pfnmap("plan", "--batch", *jobs, path) for jobs in ((), ("--jobs", "2")))
    assert two.stdout == one.stdout
    assert one.exit_code == two.exit_code == 1


def test_captured_hosts_are_answered_by_plan_and_host(pfnmap, root):
    files = sorted((root / "examples" / "hosts").glob("*.tar.xz"))
    hosts = documents(pfnmap("host", "--batch", *files))
    assert [document["schema"] for document in hosts] == ["pfnmap-host/1"] * 3
    assert all(len(document["mappings"]) == 24 for document in hosts)
    (planned,) = documents(pfnmap("plan", "--batch", "--vmm", "qemu-11.0", files[0]))
    assert {row["device"] for row in planned["mappings"]} == set(hosts[0]["mappings"][0]["candidates"])
    assert planned["kernel"]["release"] == "6.14.0-27-generic"


def test_host_takes_lines_that_name_captured_hosts(pfnmap, root, tmp_path):
    tar = str(root / "examples" / "hosts" / "h200-qemu-9.2.tar.xz")
    path = written(tmp_path, {"root": tar, "id": 7}, {"root": str(tmp_path / "none")}, {"root": tar, "pid": 1})
    first, *broken = documents(pfnmap("host", "--batch", path))
    assert (first["id"], len(first["mappings"])) == (7, 24)
    assert "no such file" in broken[0]["error"]
    assert "no such process" in broken[1]["error"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--batch", "--jobs", "0"), "--jobs"),
        (("--batch", "--jobs", "-3"), "--jobs"),
        (("--jobs", "2"), "--batch"),
        (("--dask", "tcp://127.0.0.1:1"), "--batch"),
        (("--batch", "--jobs", "2", "--dask", "x"), "exclude"),
        (("--batch", "/nonexistent.jsonl"), "no such file"),
    ],
)
def test_bad_usage_is_one_line(refused, words, said):
    assert said in refused("plan", *words)


def test_only_so_many_chunks_are_on_their_way():
    """However many lines there are, what is read ahead of what is written is bounded."""
    read, taken = count(), []

    def endless():
        for number in read:
            taken.append(number)
            yield Line(number, b"")

    def submit(chunk):
        future = Future()
        future.set_result(Answers(b"%d" % chunk[0].number, len(chunk), 0))
        return future

    answers = in_order(chunks(endless()), submit, workers=2)
    for n in range(100):
        assert next(answers).text == b"%d" % (n * CHUNK)
        assert len(taken) <= (n + 6) * CHUNK


@pytest.mark.parametrize("jobs", [(), ("--jobs", "2")], ids=["one process", "two"])
def test_interrupted_it_ends_with_what_was_answered(jobs):
    command = [sys.executable, "-c", "from pfnmap.cli import main; main()", "plan", "--batch", *jobs]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)

    def hear() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background is started with it ignored

    with subprocess.Popen(command, **pipes, text=True, start_new_session=True, preexec_fn=hear) as asked:
        for _ in range(8 * CHUNK):
            asked.stdin.write('{"bar": "1G"}\n')
        asked.stdin.flush()
        assert json.loads(asked.stdout.readline())["line"] == 1
        os.killpg(asked.pid, signal.SIGINT)
        rest = asked.stdout.read()
        said = asked.stderr.read()
        assert asked.wait(30) == 130
    assert all(json.loads(line)["mappings"] for line in rest.splitlines())
    assert "Traceback" not in said


def test_memory_is_flat_over_the_number_of_lines(process):
    code = """
import resource, sys, io, json
from pfnmap.cli.app import app
class Endless(io.RawIOBase):
    def __init__(self, n): self.n = n; self.rest = b""
    def readable(self): return True
    def readinto(self, b):
        while not self.rest and self.n:
            self.n -= 1
            self.rest = json.dumps({"bar": f"{1 << self.n % 20}M", "id": self.n}).encode() + b"\\n"
        k = min(len(b), len(self.rest)); b[:k] = self.rest[:k]; self.rest = self.rest[k:]
        return k
sys.stdin = type("S", (), {"buffer": io.BufferedReader(Endless(int(sys.argv[1])))})()
sys.stdout = open("/dev/null", "w")
try: app(["plan", "--batch"])
except SystemExit as e: assert not e.code, e.code
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""
    few, many = (int(process(str(n), code=code).stderr.split()[-1]) for n in (100, 4000))
    assert many < few + 16 * 1024  # KiB


# --- a cluster


@pytest.fixture
def cluster():
    """A scheduler and two workers, each a process of its own; yields the address and the workers."""
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    scheduler = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "distributed.cli.dask_scheduler",
            "--port",
            "0",
            "--no-dashboard",
            "--host",
            "127.0.0.1",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    address = next(line.split()[-1] for line in scheduler.stderr if "Scheduler at" in line)
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny"]
    workers = [
        subprocess.Popen([*command, "--no-dashboard"], stderr=subprocess.DEVNULL, start_new_session=True)
        for _ in range(2)
    ]
    yield address, workers
    for one in (*workers, scheduler):
        one.kill()
        one.wait()


def test_cluster_answers_as_one_process_and_loses_nothing_with_a_worker(cluster, tmp_path, pfnmap):
    address, workers = cluster
    path = written(tmp_path, *({"bar": f"{1 << n % 20}M", "id": n} for n in range(20 * CHUNK)))
    command = [sys.executable, "-c", "from pfnmap.cli import main; main()", "plan", "--batch", "--dask", address]
    asked = subprocess.Popen([*command, path], stdout=subprocess.PIPE, text=True)
    first = list(islice(asked.stdout, 2 * CHUNK))
    os.kill(workers[0].pid, signal.SIGKILL)
    rest = asked.stdout.read()
    assert asked.wait(60) == 0
    assert "".join(first) + rest == pfnmap("plan", "--batch", path).stdout


def test_scheduler_that_does_not_answer_is_one_line(refused, monkeypatch):
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    monkeypatch.setattr("pfnmap.batch._CONNECT", "1s")
    assert "no scheduler answers" in refused("plan", "--batch", "--dask", "tcp://127.0.0.1:1")


# --- the summary


def host(*rows, **more):
    return {"mappings": list(rows), **more}


def row(level, *blocked, device="0000:01:00.0", **more):
    runs = [{"va": "0x0", "length": 4096, "level": level, "count": 1}] if level else []
    return {
        "device": device,
        "runs": runs,
        "blocked": [{"va": "0x0", "level": at, "reason": reason} for at, reason in blocked],
    } | more


def test_summary_counts_hosts_bars_reasons_and_fixes(answer, tmp_path):
    fix = {"changes": ["vmm=qemu-11.0"]}
    path = written(
        tmp_path,
        host(
            row("pte", ("pmd", "not_congruent"), ("pud", "config"), fix=fix), row("pud", device="0000:02:00.0", fix=fix)
        ),
        host(row("pte", ("pmd", "thp_disabled"), fix={"changes": ["thp=always", "vmm=x-1"]})),
        host(row("pmd", ("pud", "too_small"), fix=None)),
        host(row("pte", ("pmd", "not_congruent"), fix=fix, vmpte={"agrees": False})),
        host(row("", ("pte", "not_mmapable"), device=None, candidates=["a", "b"], fix=None)),
        {"line": 6, "error": "no such release"},
        "not JSON",
        "[]",
        host({"device": 1}),
    )
    said = answer("fleet", path)
    assert (said["hosts"], said["broken"], said["devices"]) == (5, 4, 7)
    assert said["bars"] == {"pud": 1, "pmd": 1, "pte": 3, "none": 1}
    assert said["reasons"] == [
        {"reason": "not_congruent", "count": 2},
        {"reason": "not_mmapable", "count": 1},
        {"reason": "thp_disabled", "count": 1},
    ]
    assert said["fixes"] == [
        {"change": "vmm=qemu-11.0", "hosts": 2},
        {"change": "thp=always + vmm=x-1", "hosts": 1},
    ]
    assert (said["helped"], said["advised"], said["contradicted"]) == (3, 5, 1)


def test_summary_reads_what_batch_writes(pfnmap, answer, root, tmp_path):
    files = sorted((root / "examples" / "hosts").glob("*.tar.xz"))
    results = tmp_path / "results.jsonl"
    results.write_text(pfnmap("host", "--batch", *files).stdout)
    said = answer("fleet", results)
    assert (said["hosts"], said["devices"]) == (3, 24)
    assert said["bars"] == {"pud": 16, "pmd": 32, "pte": 24, "none": 0}
    assert said["fixes"] == [{"change": "vmm=qemu-10.2", "hosts": 1}]
    shown = pfnmap("fleet", input=results.read_text())
    assert shown.exit_code == 0
    assert "vmm=qemu-10.2" in shown.stdout


def test_summary_of_nothing_is_a_clean_no(pfnmap, refused, tmp_path):
    assert pfnmap("fleet", input="").exit_code == 1
    assert pfnmap("fleet", input="x\n").exit_code == 1
    assert "no such file" in refused("fleet", tmp_path / "none")


def test_hostile_results_are_broken_or_shown_escaped(pfnmap):
    code = "\x1b[2Jx"
    lines = [
        host(row("pte", ("pmd", code))),
        host(row("pte", fix={"changes": [code]})),
        {"error": code},
        host(row(code)),
    ]
    result = pfnmap("fleet", input="".join(f"{json.dumps(line)}\n" for line in lines))
    assert "\x1b" not in result.stdout + result.stderr
    assert result.stdout.startswith("0 hosts, 0 BARs, 4 lines broken")


def test_a_named_pipe_that_nobody_writes_to_is_said(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(bounded, "_WAIT", 0.1)
    with pytest.raises(BadInput, match="a pipe that nobody wrote to"):
        list(lines([str(tmp_path / "pipe")], bytes))
