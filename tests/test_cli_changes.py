"""The command `changes`: what is known of upstream changes, and who brings it."""

from __future__ import annotations

import json

import pytest


def test_every_change_is_listed_with_who_brings_it(answer, pfnmap):
    rows = {row["id"]: row for row in answer("changes")["changes"]}
    assert rows["huge-pfnmap"]["by"] == "pfnmap"
    assert rows["vfio-align-fault-to-order"]["by"] == "pfnmap-vfio-pci"
    assert rows["arm64-pud-pfnmap"]["by"] == "pfnmap-arm64"
    assert "brought by" in pfnmap("changes").stdout


def test_a_change_that_is_not_modelled_says_so(answer, pfnmap):
    rows = {row["id"]: row for row in answer("changes")["changes"]}
    assert (rows["vfio-fdinfo-syspath"]["modelled"], rows["mseal"]["modelled"]) == (False, True)
    assert "(not modelled)" in " ".join(pfnmap("changes").stdout.split())


def test_changes_of_plugins_that_are_disabled_are_not_known(process):
    listed = process("changes", "--json", env={"PFNMAP_PLUGINS": "arm64"})
    assert {row["by"] for row in json.loads(listed.stdout)["changes"]} == {"pfnmap", "pfnmap-arm64"}
    none = process("--no-plugins", "changes", "6.12.117", "--json")
    assert "arm64-pud-pfnmap" not in json.loads(none.stdout)["changes"]
    refused = process("caps", "--with", "riscv-pgprot", env={"PFNMAP_PLUGINS": "arm64"})
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "unknown change 'riscv-pgprot'" in refused.stderr


def test_the_core_and_one_architecture_are_enough_to_link_and_run(process, tmp_path):
    scenario = tmp_path / "anonymous.toml"
    scenario.write_text(
        '[[step]]\nop = "mmap"\nid = "m"\nlength = "8K"\nprot = "rw"\nshared = false\n'
        '[[step]]\nop = "touch"\nva = "m"\naccess = "write"\nexpect = { result = "ok" }\n'
    )
    for arch in ("arm64", "riscv64", "powerpc64", "s390", "x86_64"):
        caps = process("caps", arch, "--json", env={"PFNMAP_PLUGINS": arch})
        assert (caps.returncode, caps.stderr) == (0, "")
        run = process("run", str(scenario), "--arch", arch, env={"PFNMAP_PLUGINS": arch})
        assert (run.returncode, run.stderr) == (0, ""), arch


def test_a_difference_names_what_is_not_known_of_either(answer, pfnmap):
    found = answer("changes", "6.19.1", "6.19.2", "--json")
    assert found["difference"] == []
    assert "follow-recheck-under-lock" in found["unknown"]
    shown = pfnmap("changes", "6.19.1", "6.19.2").stdout
    assert "not known of either" in shown
    assert "follow-recheck-under-lock" in shown


def test_what_is_to_be_picked_stands_behind_what_it_requires(answer):
    picks = answer("changes", "6.11", "6.15", "--json")["picks"]
    order = [pick["change"] for pick in picks]
    assert order.index("huge-pfnmap") < order.index("follow-addr-mask") < order.index("type1-pfnmap-batch")
    for place, pick in enumerate(picks):
        assert not set(pick["requires"]) & set(order[place:])
    assert {p["commit"] for p in picks if p["change"] == "type1-pfnmap-batch"} == {"0fd06844de5d"}


def test_a_commit_id_stands_for_its_change(answer):
    by_id, by_commit = (
        answer("plan", "--bar", "1G", "--vmm", "aligned", "--release", "6.14", "--with", change)
        for change in ("thp-bypass-pfnmap", "e384abeb559d10d6505aec053ede9368d81d4c71")
    )
    assert by_id == by_commit
    assert by_id["kernel"]["changes"]["thp-bypass-pfnmap"] == "yes"


def test_a_profile_is_written_over_only_by_force(pfnmap, tmp_path):
    profile = tmp_path / "profile.toml"
    assert pfnmap("changes", "6.11", "-o", str(profile)).exit_code == 0
    refused = pfnmap("changes", "7.3", "-o", str(profile))
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert pfnmap("changes", "7.3", "-o", str(profile), "--force").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["profile.toml"]


@pytest.mark.parametrize("there", [True, False])
def test_a_profile_is_never_written_through_a_symbolic_link(pfnmap, tmp_path, there):
    profile, target = tmp_path / "profile.toml", tmp_path / "target"
    if there:
        target.write_text("precious")
    profile.symlink_to(target)
    assert "is there already" in pfnmap("changes", "6.11", "-o", str(profile)).stderr
    assert target.exists() == there
    assert pfnmap("changes", "6.11", "-o", str(profile), "--force").exit_code == 0
    assert not profile.is_symlink()
    assert target.exists() == there
    assert not there or target.read_text() == "precious"


def test_a_profile_is_written_over_no_device_and_no_directory(refused, tmp_path):
    assert "no file that could be written over" in refused("changes", "6.11", "-o", "/dev/null", "--force")
    assert "no file that could be written over" in refused("changes", "6.11", "-o", tmp_path, "--force")
    assert list(tmp_path.iterdir()) == []


def test_a_log_is_written_over_only_by_force(pfnmap, tmp_path):
    log = tmp_path / "log"
    log.write_text("0" * 40 + "\nLinux 6.12\n\n")
    before = log.read_text()
    assert pfnmap("changes", "--log", str(log), "-o", str(log)).exit_code == 2
    assert log.read_text() == before
