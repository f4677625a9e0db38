"""plan, run, replay, check and changes: their documents, their exit codes, and what is printed for people."""

from __future__ import annotations

import gzip
import json

import pytest

PUD = 1 << 30
BAR = "8G@0x800000000"
RECORDED = ("--release", "6.12.117")

# The machine, the steps and the results of the record matrix.8G.natural.read of 6.12.117.
SCENARIO = """
[kernel]
release = "6.12.117"

[[device]]
name = "bar8G"
bdf = "0000:00:01.0"
[[device.bar]]
index = 2
size = "8G"
phys = "0x800000000"

[[step]]
op = "mmap"
id = "m0"
device = "bar8G"
bar = 2
offset = 0
length = "8G"
addr = "0x100000000000"
fixed = true
prot = "rw"
shared = true
expect = { result = "ok", addr = 0x100000000000, table_bytes = 0 }

[[step]]
op = "touch"
va = "m0+0x200000"
access = "read"
expect = { table_bytes = 4096, entry = { level = "pud" }, faults = [{ order = 18, ret = "NOPAGE" }] }
"""


@pytest.fixture
def scenario(tmp_path):
    def write(text=SCENARIO):
        path = tmp_path / "scenario.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def recording(root):
    return root / "tests/data/cli/recording.json"


# plan


def test_plan_says_what_was_recorded_of_a_whole_bar(answer):
    (mapping,) = answer("plan", "--bar", BAR, "--va", "0x100000000000", *RECORDED)["mappings"]
    assert mapping["runs"] == [{"va": "0x100000000000", "length": 8 * PUD, "level": "pud", "count": 8}]
    assert mapping["counts"] == {"pud": 8, "pmd": 0, "pte": 0}
    assert (mapping["driver_calls"], mapping["table_bytes"]) == (8, 4096)
    assert (mapping["device"], mapping["bar"], mapping["phys"], mapping["policy"]) == (None, 0, "0x800000000", None)
    assert mapping["blocked"] == []


def test_plan_has_both_core_policies_side_by_side(answer):
    document = answer("plan", "--bar", BAR, "--bar", "2M@0xa68400000", *RECORDED)
    assert [(m["bar"], m["policy"]) for m in document["mappings"]] == [
        (0, "kernel"),
        (0, "aligned"),
        (1, "kernel"),
        (1, "aligned"),
    ]
    assert document["mappings"][1]["va"] == "0x100000000000"
    assert set(document) >= {"schema", "kernel", "mappings", "undetermined"}
    (only,) = answer("plan", "--bar", BAR, "--vmm", "aligned")["mappings"]
    assert only["policy"] == "aligned"


def test_plan_maps_a_part_of_one_bar(answer):
    (mapping,) = answer("plan", "--bar", BAR, "--offset", "2M", "--length", "4M", "--vmm", "aligned")["mappings"]
    assert (mapping["phys"], mapping["length"]) == ("0x800200000", 4 << 20)
    assert mapping["counts"] == {"pud": 0, "pmd": 2, "pte": 0}
    assert {row["level"]: row["reason"] for row in mapping["blocked"]} == {"pud": "too_small"}


def test_plan_reads_lspci_from_a_file_and_from_standard_input(answer, pfnmap, root):
    file = root / "examples/lspci/h100.txt"
    document = answer("plan", "--lspci", file, "--vmm", "aligned")
    sizes = {mapping["bar"]: mapping["length"] for mapping in document["mappings"]}
    assert sizes == {0: 16 << 20, 2: 128 << 30, 4: 32 << 20}
    piped = pfnmap("plan", "--lspci", "-", "--vmm", "aligned", "--json", input=file.read_text())
    for mapping in document["mappings"]:
        assert mapping.pop("input") == {"file": str(file), "kind": "lspci"}
    assert [{**m, "input": None} for m in json.loads(piped.stdout)["mappings"]] == [
        {**m, "input": None} for m in document["mappings"]
    ]


def test_plan_takes_the_mappings_and_the_kernel_of_a_scenario(answer, scenario):
    document = answer("plan", scenario())
    assert document["kernel"]["release"] == "6.12.117"
    (mapping,) = document["mappings"]
    assert (mapping["device"], mapping["bar"], mapping["va"]) == ("0000:00:01.0", 2, "0x100000000000")
    assert mapping["counts"]["pud"] == 8


def test_an_option_overrides_what_a_scenario_says_of_the_kernel(answer, scenario):
    document = answer("plan", scenario(), "--release", "6.1.192")
    assert document["mappings"][0]["counts"] == {"pud": 0, "pmd": 0, "pte": 8 * PUD // 4096}


def test_a_scenario_without_mappings_plans_every_bar(answer, scenario):
    document = answer("plan", scenario(SCENARIO.partition("[[step]]")[0]))
    assert [(m["bar"], m["policy"]) for m in document["mappings"]] == [(2, "kernel"), (2, "aligned")]


def test_a_device_of_another_driver_is_planned_as_that_maps(answer, root):
    rows = answer("plan", root / "examples/scenarios/poison-keep.toml")["mappings"]
    assert {row["driver"] for row in rows} == {"nvgrace_gpu"}
    assert all(row["counts"]["pmd"] or row["counts"]["pud"] for row in rows)


def test_an_unknown_change_that_alters_a_plan_is_planned_both_ways(answer):
    document = answer("plan", "--bar", BAR, "--release", "6.12.0-1-amd64", "--thp", "never")
    assert "thp-bypass-pfnmap" in [row["change"] for row in document["undetermined"]]


def test_plan_for_people_states_the_kernel_first_and_says_why_not_larger(pfnmap):
    result = pfnmap("plan", "--bar", BAR, *RECORDED)
    assert result.exit_code == 0
    assert result.stdout.startswith("x86_64 6.12.117, 4K pages, THP always")
    assert "off the BAR's address modulo 1G" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give --bar, or files"),
        (("--bar", BAR, "--lspci", "x"), "--bar and x exclude each other"),
        (("--bar", BAR, "x.toml"), "--bar and x.toml exclude each other"),
        (("--bar", BAR, "--bar", BAR, "--offset", "2M"), "--offset and --length go with exactly one --bar"),
        (("--bar", BAR, "--bar", BAR, "--va", "0x100000000000"), "--va: one address for 2 mappings"),
        (("--bar", BAR, "--va", "0x100000000000", "--vmm", "kernel"), "--va and --vmm exclude each other"),
        (("--lspci", "x", "--length", "2M"), "--offset and --length go with exactly one --bar"),
        (("--bar", BAR, "--vmm", "qemuu"), "unknown placement policy 'qemuu'"),
    ],
)
def test_plan_takes_one_kind_of_input_and_one_placement(refused, arguments, said):
    assert said in refused("plan", *arguments)


# run


def test_run_gives_every_steps_results(answer, scenario):
    document = answer("run", scenario())
    mmap, touch = document["steps"]
    assert (mmap["op"], mmap["result"], mmap["addr"]) == ("mmap", "ok", "0x100000000000")
    assert [(fault["order"], fault["ret"]) for fault in touch["faults"]] == [(18, "NOPAGE")]
    assert touch["entry"] == {"level": "pud", "value": "0x80000008000002b7"}
    assert document["failed"] == []
    assert document["kernel"]["release"] == "6.12.117"


@pytest.mark.parametrize(
    ("right", "wrong", "field"),
    [
        ("table_bytes = 4096", "table_bytes = 8192", "table_bytes"),
        ('level = "pud"', 'level = "pmd"', "entry"),
        ("order = 18", "order = 9", "faults"),
        ("addr = 0x100000000000,", "addr = 0x200000000000,", "addr"),
    ],
)
def test_an_expectation_that_does_not_hold_is_exit_1(answer, pfnmap, scenario, right, wrong, field):
    path = scenario(SCENARIO.replace(right, wrong))
    (failed,) = answer("run", path, exit_code=1)["failed"]
    assert failed["field"] == field
    assert failed["expected"] != failed["got"]
    text = pfnmap("run", path)
    assert text.exit_code == 1
    assert f"{field}: expected" in text.stdout


def test_a_scenario_can_be_run_on_another_kernel(answer, scenario):
    document = answer("run", scenario(), "--release", "6.12.117", "--set", "PREEMPT_RT=y", exit_code=1)
    assert document["steps"][1]["entry"]["level"] == "pte"


def test_trace_shows_events_as_they_happen(answer, pfnmap, scenario):
    touch = answer("run", scenario(), "--trace")["steps"][1]
    assert [event["event"] for event in touch["events"] if event["event"] in ("fault", "install")]
    lines = pfnmap("run", scenario(), "--trace").stdout.splitlines()
    fault = next(n for n, line in enumerate(lines) if "fault order=18 ret=NOPAGE" in line)
    assert "touch" in next(line for line in reversed(lines[:fault]) if not line.startswith("    "))


def test_dump_shows_the_page_tables_with_equal_leaves_folded(answer, pfnmap, scenario):
    text = SCENARIO + '\n[[step]]\nop = "scan"\nstart = "m0"\nend = "m0+0x200000000"\nstep = "1G"\naccess = "read"\n'
    tables = answer("run", scenario(text), "--dump")["page_tables"]
    leaf = tables[-1]
    assert (leaf["level"], leaf["va"], leaf["count"]) == ("pud", "0x100000000000", 8)
    assert leaf["value"] == "0x80000008000002b7"
    assert [row["table"] for row in tables] == [True, False]
    assert "8 x 1G" in pfnmap("run", scenario(text), "--dump").stdout


OOPS = """
[[step]]
op = "mprotect"
addr = "m0+0x1000"
length = "4K"
prot = "r"
expect = { result = "OOPS" }
"""


def test_a_misbehaviour_of_the_real_kernel_is_named_with_its_finding(answer, pfnmap, scenario):
    step = answer("run", scenario(SCENARIO + OOPS))["steps"][-1]
    assert (step["result"], step["findings"]) == ("OOPS", ["F1"])
    assert "finding=F1" in pfnmap("run", scenario(SCENARIO + OOPS)).stdout


def test_what_the_model_does_not_cover_is_exit_3_and_keeps_the_steps_before(pfnmap, scenario, monkeypatch):
    from pfnmap.errors import Refused
    from pfnmap.run import Run

    step = Run.step

    def refusing(self, one):
        if one.op == "touch":
            raise Refused("touch", "not on a Tuesday")
        return step(self, one)

    monkeypatch.setattr(Run, "step", refusing)
    result = pfnmap("run", scenario(), "--json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert [row["op"] for row in document["steps"]] == ["mmap"]
    assert document["refused"] == {"step": 1, "op": "touch", "reason": "touch: not on a Tuesday"}
    assert result.stderr.endswith("scenario.toml: step 1 touch: not on a Tuesday\n")


# replay


def test_replay_agrees_with_a_real_kernel(answer, pfnmap, recording):
    document = answer("replay", recording, recording)
    assert len(document["files"]) == 2
    entry = document["files"][0]
    assert (entry["file"], entry["records"], entry["agree"]) == (str(recording), 3, 3)
    assert (entry["refused"], entry["disagree"]) == ([], [])
    assert {"result", "faults", "entry", "table_bytes", "runs", "present"} <= set(entry["fields"])
    assert entry["kernel"]["release"] == "6.12.117"
    text = pfnmap("replay", recording, recording)
    assert text.exit_code == 0
    assert "total" in text.stdout


def changed(recording, tmp_path, change):
    document = json.loads(recording.read_text())
    change(document["records"])
    path = tmp_path / "changed.json.gz"
    path.write_bytes(gzip.compress(json.dumps(document).encode()))
    return path


def test_a_disagreement_is_exit_1_and_named(answer, pfnmap, recording, tmp_path):
    def change(records):
        records[0]["steps"][2]["expect"]["handle_mm_fault"] = 7

    path = changed(recording, tmp_path, change)
    (entry,) = answer("replay", path, exit_code=1)["files"]
    (row,) = entry["disagree"]
    assert (row["step"], row["field"], row["expected"], row["got"]) == (2, "handle_mm_fault", 7, 1)
    assert entry["agree"] == 2
    text = pfnmap("replay", path)
    assert text.exit_code == 1
    assert row["id"] in text.stdout


def test_a_refusal_is_exit_3_and_no_agreement(answer, pfnmap, recording, monkeypatch):
    import pfnmap.replay as replay

    original = replay.replay_record

    def refusing(kernel, whole, record, fields, budget):
        if record.id.startswith("entry"):
            return replay.RecordRefused(record.id, "madvise:partial", "madvise: partial")
        return original(kernel, whole, record, fields, budget)

    monkeypatch.setattr(replay, "replay_record", refusing)
    (entry,) = answer("replay", recording, exit_code=3)["files"]
    assert (entry["agree"], len(entry["refused"])) == (2, 1)
    assert entry["refused"][0]["op"] == "madvise:partial"
    assert "madvise:partial 1" in pfnmap("replay", recording).stdout


def test_a_recording_of_nothing_is_no_agreement(answer, recording, tmp_path):
    (entry,) = answer("replay", changed(recording, tmp_path, list.clear), exit_code=1)["files"]
    assert (entry["records"], entry["agree"]) == (0, 0)


# check


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
def test_check_agrees_with_golden_vectors(answer, root, arch):
    files = sorted((root / f"plugins/{arch}/tests/data").glob(f"{arch}-*.json.gz"))
    document = answer("check", arch, "--vectors", *files)
    assert [entry["file"] for entry in document["files"]] == list(map(str, files))
    for entry in document["files"]:
        assert entry["rows"] == entry["agree"] == sum(h["rows"] for h in entry["helpers"].values()) > 1000
        assert entry["disagree"] == []
        assert entry["helpers"]["constants"]["rows"] > 0
        assert set(entry) >= {"file", "rows", "agree", "disagree", "helpers", "out_of_scope", "kernel"}


@pytest.fixture
def wrong_vectors(root, tmp_path):
    document = json.loads(gzip.decompress((root / "plugins/x86_64/tests/data/x86_64-4k.json.gz").read_bytes()))
    row = document["vectors"]["pmd_mkspecial"][0]
    row[-1] = hex(int(row[-1], 16) ^ 0x200)
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(document))
    return path


def test_a_row_that_disagrees_is_exit_1_and_shown(answer, pfnmap, wrong_vectors):
    (entry,) = answer("check", "x86_64", "--vectors", wrong_vectors, exit_code=1)["files"]
    assert entry["rows"] == entry["agree"] + 1
    assert entry["disagree"][0]["helper"] == "pmd_mkspecial"
    text = pfnmap("check", "x86_64", "--vectors", wrong_vectors, "--verbose")
    assert text.exit_code == 1
    assert "pmd_mkspecial(" in text.stdout


def test_vectors_without_rows_are_no_agreement(answer, wrong_vectors):
    document = json.loads(wrong_vectors.read_text())
    document["vectors"], document["constants"] = {}, {}
    wrong_vectors.write_text(json.dumps(document))
    (entry,) = answer("check", "x86_64", "--vectors", wrong_vectors, exit_code=1)["files"]
    assert entry["rows"] == 0


def test_vectors_of_another_architecture_are_bad_input(refused, root):
    file = root / "plugins/x86_64/tests/data/x86_64-4k.json.gz"
    assert "vectors of x86_64, not of arm64" in refused("check", "arm64", "--vectors", file)


def test_check_takes_boot_time_state_that_the_files_do_not_say(answer, refused, root):
    file = root / "plugins/powerpc64/tests/data/powerpc64-64k.json.gz"
    (entry,) = answer("check", "powerpc64", "--vectors", file, "--cpu", "mmu=hash", exit_code=1)["files"]
    assert entry["kernel"]["cpu"]["mmu"] == "hash"
    assert entry["agree"] < entry["rows"]
    assert "did you mean 'mmu'" in refused("check", "powerpc64", "--vectors", file, "--cpu", "mm=hash")
    assert "--cpu goes with --vectors" in refused("check", "powerpc64", "--cpu", "mmu=hash")


def test_mutants_are_made_of_architectures(refused):
    assert "vfio_pci: mutants are made of architectures" in refused("check", "vfio_pci", "--mutants", "1")
    assert "--cpu goes with --vectors" in refused("check", "x86_64", "--mutants", "1", "--cpu", "la57=on")


# changes


def test_changes_lists_what_is_known(answer):
    changes = {row["id"]: row for row in answer("changes")["changes"]}
    assert changes["thp-bypass-pfnmap"]["first"] == "7.3"
    assert "6.12.115" in changes["thp-bypass-pfnmap"]["backports"]


def test_changes_of_a_release(answer):
    document = answer("changes", "6.12.117")
    assert document["changes"]["thp-bypass-pfnmap"] == "yes"
    assert document["missing_fixes"] == []


def test_a_release_that_lacks_a_fix_is_exit_1(answer, pfnmap):
    missing = answer("changes", "6.12", exit_code=1)["missing_fixes"]
    assert {"fix": "vfio-unaligned-pfn-fallback", "fixes": "huge-pfnmap"} in missing
    assert "missing: vfio-unaligned-pfn-fallback" in pfnmap("changes", "6.12").stdout


def test_changes_between_two_releases(answer, pfnmap):
    rows = answer("changes", "6.12.113", "6.12.117")["difference"]
    assert {"change": "thp-bypass-pfnmap", "before": "no", "after": "yes"} in rows
    assert pfnmap("changes", "6.12.117", "6.12.117").stdout.startswith("6.12.117 -> 6.12.117: 0 ")


COMMITS = """\
1111111111111111111111111111111111111111
mm/huge_memory: bypass THP tuneables for huge pfnmap mappings
commit e384abeb559d upstream.

Words.
2222222222222222222222222222222222222222
vfio/pci: implement huge_fault support
Words.
"""


def test_a_log_is_read_from_a_file_or_standard_input_and_written_as_a_profile(answer, pfnmap, tmp_path):
    log, profile = tmp_path / "log", tmp_path / "tree.toml"
    log.write_text(COMMITS)
    document = answer("changes", "--log", log, "-o", profile)
    verdicts = {row["change"]: row for row in document["changes"]}
    assert (verdicts["thp-bypass-pfnmap"]["verdict"], verdicts["thp-bypass-pfnmap"]["line"]) == ("present", 3)
    assert verdicts["type1-pfnmap-batch"]["verdict"] == "undecidable"
    piped = pfnmap("changes", "--log", "-", "--json", input=COMMITS)
    assert json.loads(piped.stdout)["changes"] == document["changes"]
    kernel = answer("caps", "x86_64", "--release", profile)["kernel"]
    assert (kernel["changes"]["huge-pfnmap"], kernel["changes"]["type1-pfnmap-batch"]) == ("yes", "unknown")


def test_a_log_that_lacks_a_fix_is_exit_1(answer, pfnmap, tmp_path):
    log = tmp_path / "log"
    log.write_text(COMMITS)
    document = answer("changes", "--log", log, "--base", "6.12", exit_code=1)
    assert "vfio-align-fault-to-order" in [row["fix"] for row in document["missing_fixes"]]
    assert "missing: vfio-align-fault-to-order" in pfnmap("changes", "--log", log, "--base", "6.12").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("6.12", "--log", "x"), "a release and --log exclude each other"),
        (("--base", "6.12"), "--base goes with --log"),
        (("-o", "x.toml"), "-o goes with --log, or with one release"),
        (("6.12", "6.13", "-o", "x.toml"), "-o goes with --log, or with one release"),
    ],
)
def test_changes_takes_one_question(refused, arguments, said):
    assert said in refused("changes", *arguments)
