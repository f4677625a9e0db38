"""The command `changes`: what is known of upstream changes, and who brings it."""

from __future__ import annotations

import json


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
