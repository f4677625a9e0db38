"""Changes are brought like Kconfig: by any package, known without importing it, and never set for nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pfnmap import BadInput, LinkError, PluginError, Refused, Unknown
from pfnmap.changes import brought
from pfnmap.kernel import Kernel
from pfnmap.plugins import Registry
from pfnmap.release import Release, facts, parse_release

ARCH = """
from pfnmap.testing.plain import Plain

class Toy(Plain):
    name = "toyarch"

    def setup_arch(self, config, cpu, has):
        super().setup_arch(config, cpu, has)
        self.gated = has("toy-gate")
"""
GATE = """
[[change]]
id = "toy-gate"
title = "the toy has leaves"
first = "6.15"
requires = ["huge-pfnmap"]
sure = "source"
"""
IMPORTED = "raise SystemExit('imported')"

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution of one package that has one entry point, and what it knows of changes."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("PFNMAP_PLUGINS", raising=False)

    def _install(name: str, kind: str, source: str, changes: str, requires: str = "") -> None:
        package = tmp_path / f"pfnmap_{name}"
        package.mkdir()
        (package / "__init__.py").write_text(source)
        (package / "changes.toml").write_text(changes)
        monkeypatch.delitem(sys.modules, package.name, raising=False)
        info = tmp_path / f"pfnmap_{name}-1.0.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: pfnmap-{name}\nVersion: 1.0\n"
        (info / "METADATA").write_text(metadata + (f"Requires-Dist: {requires}\n" if requires else ""))
        target = package.name if kind == "changes" else f"{package.name}:Toy"
        (info / "entry_points.txt").write_text(f"[pfnmap.{kind}]\n{name} = {target}\n")

    return _install


def release(text: str, registry: Registry, *with_: str) -> Release:
    return parse_release(text, with_, known=facts(registry))


def test_an_architecture_gates_itself_with_a_change_of_its_own(install: Install):
    install("toy", "arch", ARCH, GATE)
    for named, gated in (("6.12.117", False), ("7.3.4", True)):
        kernel = Kernel.link("toy", release=named)
        assert (kernel.has("toy-gate"), kernel.arch.gated) == (gated, gated)
    registry = Registry()
    assert Kernel.link("toy", release=release("6.12.117", registry, "toy-gate"), registry=registry).arch.gated


def test_who_brings_a_change_is_known(install: Install):
    install("toy", "arch", IMPORTED, GATE)
    registry = Registry()
    assert facts(registry).changes["toy-gate"].package == "pfnmap_toy"
    assert facts(registry).changes["huge-pfnmap"].package == "pfnmap"
    assert registry.distribution_of("pfnmap_toy") == "pfnmap-toy"
    assert registry.distribution_of("pfnmap") == "pfnmap"


def test_facts_are_read_without_importing(install: Install):
    install("toy", "changes", IMPORTED, GATE)
    assert facts(Registry()).changes["toy-gate"].first == "6.15"
    assert "toy" in Registry().names("changes")
    assert "pfnmap_toy" not in sys.modules


def test_a_disabled_plugins_changes_are_not_known(install: Install, monkeypatch: pytest.MonkeyPatch):
    install("toy", "changes", "", GATE)
    assert "toy-gate" in facts().changes
    assert "toy-gate" not in facts(Registry("other")).changes
    assert "toy-gate" not in facts(Registry(disabled=True)).changes
    monkeypatch.setenv("PFNMAP_PLUGINS", "other")
    assert "toy-gate" not in facts().changes
    with pytest.raises(Unknown, match="change 'toy-gate'"):
        parse_release("7.3.4").has("toy-gate")


def test_the_newest_release_does_not_hang_on_what_is_installed(install: Install):
    install("toy", "changes", "", GATE + 'present = ["8.1.3"]\n')
    assert facts(Registry()).newest == facts(Registry(disabled=True)).newest
    assert "8.1.3" in facts(Registry()).releases


def test_a_change_of_two_packages_names_both(install: Install):
    install("one", "changes", "", GATE)
    install("two", "changes", "", GATE)
    with pytest.raises(LinkError, match=r"'toy-gate'.*pfnmap_one and pfnmap_two"):
        facts(Registry())
    assert facts(Registry("two")).changes["toy-gate"].package == "pfnmap_two"


def test_a_tree_of_two_packages_names_both(install: Install):
    tree = '[[tree]]\nname = "ours"\ntitle = "ours"\nbase = "6.11"\nwith = []\nwithout = []\n'
    install("one", "changes", "", tree)
    install("two", "changes", "", tree)
    with pytest.raises(LinkError, match=r"tree 'ours'.*pfnmap_one and pfnmap_two"):
        facts(Registry())


def test_what_is_said_of_changes_that_nobody_brings_is_left_out(install: Install):
    more = 'fixes = "toy-bug"\nsupersedes = ["toy-old", "huge-pfnmap"]\n'
    tree = '[[tree]]\nname = "ours"\ntitle = "ours"\nbase = "6.11"\nwith = ["huge-pfnmap", "toy-old"]\nwithout = []\n'
    install("toy", "changes", "", GATE.replace('["huge-pfnmap"]', '["huge-pfnmap", "toy-base"]') + more + tree)
    known = facts(Registry())
    change = known.changes["toy-gate"]
    assert (change.requires, change.fixes, change.supersedes) == (("huge-pfnmap",), "", ("huge-pfnmap",))
    assert change.not_known == ("toy-base", "toy-bug", "toy-old")
    ours = parse_release("ours", known=known)
    assert (ours.changes["huge-pfnmap"], ours.changes["toy-gate"]) == ("yes", "no")


def test_requirements_hold_across_files(install: Install):
    install("toy", "changes", "", GATE)
    with pytest.raises(LinkError, match=r"'toy-gate' requires 'huge-pfnmap', which 6\.11 lacks"):
        release("6.11", Registry(), "toy-gate")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[change", "not TOML"),
        ("[[changes]]\n", "did you mean 'change'"),
        ("change = 3\n", "not written as"),
        (GATE + 'commitment = "x"\n', "toy-gate: unknown key 'commitment'; did you mean 'commit'"),
        (GATE.replace('sure = "source"\n', ""), "toy-gate: sure is missing"),
        (GATE.replace('"6.15"', '"soon"'), "first = 'soon'"),
        (GATE.replace('"6.15"', "6.15"), "first = 6.15: a str was expected"),
        (GATE + 'present = ["6.15.y"]\n', "present = '6.15.y'"),
        (GATE + 'backports = "6.12.3"\n', "a list of strings"),
        (GATE + 'modelled = "no"\n', "a bool was expected"),
        (GATE + GATE, "'toy-gate' stands there twice"),
        (GATE + 'package = "pfnmap"\n', "unknown key 'package'"),
    ],
)
def test_a_malformed_file_breaks_its_plugin_alone(install: Install, text: str, message: str):
    install("toy", "arch", ARCH, text)
    with pytest.raises(BadInput, match=message) as error:
        brought("pfnmap_toy")
    assert "changes.toml of pfnmap_toy" in str(error.value)
    registry = Registry()
    (plugin,) = [p for p in registry.plugins() if p.name == "toy"]
    assert registry.probe(plugin)[0].status == "broken"
    with pytest.raises(PluginError, match=message):
        registry.load("arch", "toy")
    assert "huge-pfnmap" in facts(registry).changes


def test_a_change_that_no_code_asks_for_cannot_be_set(install: Install):
    install("toy", "arch", ARCH, GATE + GATE.replace("toy-gate", "toy-talk") + "modelled = false\n")
    with pytest.raises(Refused, match="'toy-talk': it is listed and not modelled"):
        Kernel.link("toy", release=release("7.3.4", Registry(), "toy-talk"))
    assert Kernel.link("toy", release="7.3.4").has("toy-talk")  # what a release has is said all the same


def test_a_change_about_another_architecture_cannot_be_set(install: Install):
    install("toy", "arch", ARCH, GATE + 'arch = ["otherarch"]\n')
    with pytest.raises(Refused, match="'toy-gate': it is about otherarch and alters nothing on toyarch"):
        Kernel.link("toy", release=release("7.3.4", Registry(), "toy-gate"))


@pytest.mark.parametrize("settle", [{"with_": ["toy-gate"]}, {"without": ["toy-gate"]}])
def test_a_change_of_a_plugin_that_is_not_linked_cannot_be_set(install: Install, settle: dict[str, list[str]]):
    install("toy", "changes", "", GATE)
    install("mine", "arch", ARCH.replace('has("toy-gate")', "0"), "")
    registry = Registry()
    settled = parse_release("7.3.4", known=facts(registry), **settle)
    with pytest.raises(
        Refused, match="'toy-gate': it is brought by pfnmap-toy, and nothing of that is linked"
    ) as error:
        Kernel.link("mine", release=settled, registry=registry)
    assert error.value.exit_code == 3


def test_a_change_of_what_a_plugin_depends_on_can_be_set(install: Install):
    install("toy", "changes", "", GATE)
    install("mine", "arch", ARCH, "", requires="pfnmap_toy (>=1,<2)")
    registry = Registry()
    assert Kernel.link("mine", release=release("6.12.117", registry, "toy-gate"), registry=registry).arch.gated
