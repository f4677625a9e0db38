"""plugins, caps, kconfig and the options that say which kernel is meant."""

from __future__ import annotations

import gzip
import json
from importlib.metadata import entry_points
from pathlib import Path

import pytest

BROKEN = "raise RuntimeError('no such\\nluck')\n"


def install(folder: Path, name: str, module: str, group: str = "pfnmap.driver", distribution: str = "") -> None:
    """Lay out a distribution with one plugin, as an installer would."""
    distribution = distribution or f"pfnmap-{name}"
    package = distribution.replace("-", "_")
    (folder / f"{package}.py").write_text(module)
    info = folder / f"{package}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {package}:Plugin\n")


def test_plugins_are_listed_with_what_they_implement(answer):
    rows = {(row["kind"], row["name"]): row for row in answer("plugins")["plugins"]}
    assert {kind for kind, _ in rows} >= {"arch", "driver", "vmm", "changes", "command"}
    x86 = rows["arch", "x86_64"]
    assert (x86["distribution"], x86["status"], x86["reason"]) == ("pfnmap-x86-64", "ok", "")
    assert {"kconfig", "pmd_special", "pmd_mkspecial", "pud_pgprot"} <= set(x86["hooks"])
    assert rows["driver", "vfio_pci"]["hooks"] == ["kconfig"]


def test_a_plugin_that_raises_at_import_is_listed_as_broken_and_the_rest_works(process, tmp_path):
    install(tmp_path, "luckless", BROKEN)
    env = {"PYTHONPATH": str(tmp_path)}
    listed = process("plugins", "--json", env=env)
    assert (listed.returncode, listed.stderr) == (0, "")
    rows = {row["name"]: row for row in json.loads(listed.stdout)["plugins"]}
    assert rows["luckless"] == {
        "name": "luckless",
        "kind": "driver",
        "distribution": "pfnmap-luckless",
        "version": "1.2",
        "hooks": [],
        "provides": [],
        "consumes": [],
        "actions": [],
        "status": "broken",
        "reason": "RuntimeError at import: no such luck",
    }
    assert rows["x86_64"]["status"] == "ok"
    planned = process("plan", "--bar", "8G@0x800000000", "--json", env=env)
    assert planned.returncode == 0
    assert planned.stderr == (
        "pfnmap: warning: plugin luckless: RuntimeError at import: no such luck; it is left out\n"
    )


@pytest.mark.parametrize("module", ["import sys\nsys.exit('bye')\n", "import nothing_of_that_name\n", "Plugin ="])
def test_whatever_a_plugin_does_at_import_it_is_only_broken(process, tmp_path, module):
    install(tmp_path, "rude", module)
    listed = process("plugins", "--json", env={"PYTHONPATH": str(tmp_path)})
    assert listed.returncode == 0
    assert {row["name"]: row["status"] for row in json.loads(listed.stdout)["plugins"]}["rude"] == "broken"


def test_a_broken_architecture_is_left_out_of_a_list_and_refused_by_name(process, tmp_path):
    install(tmp_path, "vax", BROKEN, group="pfnmap.arch")
    env = {"PYTHONPATH": str(tmp_path)}
    every = process("caps", "--json", env=env)
    assert every.returncode == 0
    assert set(json.loads(every.stdout)["archs"]) >= {"arm64", "x86_64"}
    assert "vax" in every.stderr
    named = process("caps", "vax", env=env)
    assert (named.returncode, named.stdout) == (2, "")
    assert named.stderr == "pfnmap: plugin vax: RuntimeError at import: no such luck\n"


def test_an_architecture_without_its_methods_is_broken(process, tmp_path):
    install(tmp_path, "half", "from pfnmap import Arch\nclass Plugin(Arch):\n    name = 'half'\n", group="pfnmap.arch")
    env = {"PYTHONPATH": str(tmp_path)}
    rows = {row["name"]: row for row in json.loads(process("plugins", "--json", env=env).stdout)["plugins"]}
    assert rows["half"]["status"] == "broken"
    assert "pmd_mkhuge" in rows["half"]["reason"]
    linked = process("caps", "half", env=env)
    assert linked.returncode == 2
    assert "pmd_mkhuge" in linked.stderr


def test_a_plugin_of_the_wrong_kind_is_broken(process, tmp_path):
    install(tmp_path, "odd", "Plugin = 42\n", group="pfnmap.arch")
    env = {"PYTHONPATH": str(tmp_path)}
    linked = process("caps", "odd", env=env)
    assert linked.stderr == "pfnmap: plugin odd: pfnmap_odd:Plugin is no subclass of pfnmap.Arch\n"


def test_two_distributions_of_one_name_are_both_listed_until_one_is_chosen(process, tmp_path):
    source = "from pfnmap.contract.placement import Vmm\nclass Plugin(Vmm):\n    name = 'twin'\n    place = None\n"
    install(tmp_path, "twin", source, group="pfnmap.vmm", distribution="one")
    install(tmp_path, "twin", source, group="pfnmap.vmm", distribution="other")

    def status(**env):
        rows = json.loads(process("plugins", "--json", env={"PYTHONPATH": str(tmp_path), **env}).stdout)["plugins"]
        return {row["distribution"]: row["status"] for row in rows if row["name"] == "twin"}

    assert status() == {"one": "ambiguous", "other": "ambiguous"}
    assert status(PFNMAP_PLUGINS="x86_64,twin@other") == {"one": "disabled", "other": "ok"}


COMMANDS = {point.name for point in entry_points(group="pfnmap.command")}
POLICIES = {"kernel", "aligned"}


def test_plugins_can_be_switched_off(answer, refused, monkeypatch):
    rows = answer("plugins", "--no-plugins")["plugins"]
    assert {row["status"] for row in rows if row["distribution"] != "pfnmap"} == {"disabled"}
    assert "--no-plugins" in refused("--no-plugins", "caps")
    monkeypatch.setenv("PFNMAP_PLUGINS", "arm64")
    assert {row["name"] for row in answer("plugins")["plugins"] if row["status"] == "ok"} - COMMANDS - POLICIES == {
        "arm64"
    }
    assert "not in PFNMAP_PLUGINS" in refused("caps", "x86_64")


@pytest.mark.parametrize(
    "arguments", [("caps",), ("caps", "x86_64"), ("kconfig", "x86_64"), ("plan", "--bar", "8G@0x800000000")]
)
def test_without_any_architecture_a_command_says_what_to_install(refused, monkeypatch, arguments):
    commands = entry_points(group="pfnmap.command")
    monkeypatch.setattr("pfnmap.plugins.discovery.entry_points", lambda: commands)
    assert "pip install 'pfnmap[all]'" in refused(*arguments)


@pytest.mark.parametrize(
    ("arch", "release", "vectors"),
    [
        ("x86_64", "6.12.117", "plugins/x86_64/tests/data/x86_64-4k.json.gz"),
        ("x86_64", "7.3.4", "plugins/x86_64/tests/data/x86_64-4k-7.3.4.json.gz"),
        ("arm64", "6.12.117", "plugins/arm64/tests/data/arm64-4k.json.gz"),
    ],
)
def test_caps_names_the_owners_that_the_kernels_headers_define(answer, root, arch, release, vectors):
    defined = json.loads(gzip.decompress((root / vectors).read_bytes()))["defined"]
    document = answer("caps", arch, "--release", release)
    for level, row in document["archs"][arch]["levels"].items():
        for op in ("special", "mkspecial", "pgprot"):
            assert row[op] == defined[f"{level}_{op}"], (level, op)


def test_caps_of_every_architecture_with_sizes_and_answers(answer):
    document = answer("caps", "--release", "6.12.117")
    assert set(document["archs"]) >= {"arm64", "x86_64"}
    x86 = document["archs"]["x86_64"]
    assert {level: (row["size"], row["order"]) for level, row in x86["levels"].items()} == {
        "pte": (4096, 0),
        "pmd": (2 << 20, 9),
        "pud": (1 << 30, 18),
    }
    assert [row["pfnmap"] for row in x86["levels"].values()] == [True, True, True]
    assert x86["config"]["ARCH_SUPPORTS_PUD_PFNMAP"] == "y"
    assert x86["kernel"]["release"] == "6.12.117"
    assert document["archs"]["arm64"]["levels"]["pud"]["pfnmap"] is False


def test_caps_follow_configuration_release_and_page_size(answer):
    realtime = answer("caps", "x86_64", "--set", "PREEMPT_RT=y")["archs"]["x86_64"]
    assert realtime["levels"]["pmd"]["pfnmap"] is False
    assert realtime["levels"]["pmd"]["special"] == "generic"
    before = answer("caps", "x86_64", "--release", "6.1.192")["archs"]["x86_64"]
    assert before["config"]["ARCH_SUPPORTS_HUGE_PFNMAP"] == "undefined"
    assert before["levels"]["pmd"]["pfnmap"] is False
    assert answer("caps", "arm64", "--page-size", "64K")["archs"]["arm64"]["levels"]["pmd"]["size"] == 512 << 20


def test_an_option_that_suits_one_architecture_leaves_the_others_out_of_the_list(pfnmap):
    result = pfnmap("caps", "--page-size", "16K", "--json")
    assert result.exit_code == 0
    archs = json.loads(result.stdout)["archs"]
    assert "arm64" in archs
    assert "x86_64" not in archs
    assert "x86_64 is left out" in result.stderr


KERNEL_KEYS = {"arch", "release", "config_source", "page_size", "thp", "cpu", "changes", "assumed"}


def test_the_kernel_that_an_answer_holds_for_is_stated(answer, pfnmap):
    kernel = answer("kconfig", "x86_64", "PCI")["kernel"]
    assert set(kernel) >= KERNEL_KEYS
    assert set(kernel["changes"].values()) <= {"yes", "no", "unknown"}
    text = " ".join(kernel["assumed"])
    assert all(word in text for word in (kernel["release"], "4K", "always", "Kconfig defaults", "pdpe1gb"))
    first = pfnmap("kconfig", "x86_64", "PCI").stdout.splitlines()[0]
    assert all(word in first for word in ("x86_64", kernel["release"], "4K", "THP always"))


def test_what_is_said_is_not_assumed(answer):
    said = ("--arch", "x86_64", "--release", "6.12.117", "--thp", "never", "--page-size", "4K", "--cpu", "pdpe1gb=off")
    kernel = answer("plan", "--bar", "8G@0x800000000", *said)["kernel"]
    assert (kernel["thp"], kernel["cpu"]["pdpe1gb"]) == ("never", False)
    assert not any(word in " ".join(kernel["assumed"]) for word in ("6.12.117", "never", "4K", "pdpe1gb"))


def test_a_release_and_changes_settle_what_a_kernel_has(answer):
    kernel = answer("caps", "x86_64", "--release", "6.12", "--with", "vfio-unaligned-pfn-fallback")["kernel"]
    assert kernel["changes"]["vfio-unaligned-pfn-fallback"] == "yes"
    posted = answer("caps", "x86_64", "--release", "posted-v2")["kernel"]
    assert (posted["changes"]["huge-pfnmap"], posted["changes"]["vfio-align-fault-to-order"]) == ("yes", "no")


def test_an_abi_number_leaves_backports_unknown(answer):
    changes = answer("caps", "x86_64", "--release", "6.12.0-1-amd64")["kernel"]["changes"]
    assert changes["huge-pfnmap"] == "yes"
    assert changes["thp-bypass-pfnmap"] == "unknown"


def test_kconfig_gives_values_and_undefined(answer):
    symbols = ("ARCH_SUPPORTS_PUD_PFNMAP", "CONFIG_PGTABLE_LEVELS", "VFIO_PCI", "ARM64_VA_BITS", "PREEMPT_RT")
    values = answer("kconfig", "x86_64", *symbols, "--release", "6.12.117")["values"]
    assert values == {
        "ARCH_SUPPORTS_PUD_PFNMAP": "y",
        "PGTABLE_LEVELS": "5",
        "VFIO_PCI": "y",
        "ARM64_VA_BITS": "undefined",
        "PREEMPT_RT": "n",
    }
    assert answer("kconfig", "x86_64", symbols[0], "--release", "6.1.192")["values"] == {symbols[0]: "undefined"}


def test_kconfig_without_symbols_gives_all(answer):
    assert len(answer("kconfig", "arm64")["values"]) > 50


def test_a_choice_member_can_be_set_by_the_symbol_that_follows_from_it(answer):
    values = answer("kconfig", "arm64", "ARM64_VA_BITS_48", "--set", "ARM64_VA_BITS=48")["values"]
    assert values == {"ARM64_VA_BITS_48": "y"}


def test_explain_descends_to_what_decided(answer, pfnmap):
    arguments = ("kconfig", "x86_64", "--set", "PREEMPT_RT=y", "--explain", "ARCH_SUPPORTS_PMD_PFNMAP")
    (reason,) = answer(*arguments)["explain"]
    assert (reason["text"], reason["value"]) == ("ARCH_SUPPORTS_PMD_PFNMAP", "n")
    assert "PREEMPT_RT" in json.dumps(reason)
    text = pfnmap(*arguments).stdout
    assert "ARCH_SUPPORTS_PMD_PFNMAP = n" in text
    assert "PREEMPT_RT = y" in text


def test_a_real_config_has_no_conflicts_and_says_its_release(answer, root):
    for file in sorted((root / "examples/configs").glob("config-*")):
        arch = "arm64" if "arm64" in file.name else "x86_64"
        document = answer("kconfig", arch, "ARCH_SUPPORTS_PMD_PFNMAP", "--config", file)
        assert document["conflicts"] == []
        assert document["kernel"]["config_source"] == str(file)
    assert document["kernel"]["release"] == "7.3.4"
    assert any(f"as {file} says" in sentence for sentence in document["kernel"]["assumed"])


def test_a_hand_edited_config_conflicts_and_is_no_failure(pfnmap, root, tmp_path):
    real = gzip.decompress((root / "examples/configs/config-6.12.117+deb12-amd64.gz").read_bytes()).decode()
    edited = tmp_path / "config"
    edited.write_text(real.replace("CONFIG_ARCH_SUPPORTS_PUD_PFNMAP=y\n", ""))
    result = pfnmap("kconfig", "x86_64", "ARCH_SUPPORTS_PUD_PFNMAP", "--config", edited, "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["conflicts"] == [{"symbol": "ARCH_SUPPORTS_PUD_PFNMAP", "file": "n", "derived": "y"}]
    assert document["values"] == {"ARCH_SUPPORTS_PUD_PFNMAP": "y"}
    assert "ARCH_SUPPORTS_PUD_PFNMAP=n where y follows" in result.stderr


def test_a_config_of_another_architecture_is_told(pfnmap, root):
    file = root / "examples/configs/config-6.12.117+deb12-arm64.gz"
    result = pfnmap("kconfig", "x86_64", "PCI", "--config", file)
    assert result.exit_code == 0
    assert "a configuration of arm64" in result.stderr
