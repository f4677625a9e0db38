"""Plugins keep to what they say and to themselves; one that fails is named, and the tool goes on."""

from __future__ import annotations

import ast
from importlib.metadata import EntryPoints
from pathlib import Path
from typing import Any

import pytest

from pfnmap import BadInput
from pfnmap.contract.machine import MmFunctions
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.plugins import Registry, offer, why_not_linked
from pfnmap.run import Run

ROOT = Path(__file__).resolve().parents[1]
REGISTRY = Registry()
PLUGINS = [p for p in REGISTRY.plugins() if p.kind in ("arch", "driver") and (ROOT / "plugins" / p.name).is_dir()]
each_plugin = pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)

TOY = """
from pfnmap import Action, Module

class Plugin(Module):
    name = "toy"

    def actions(self):
        return {"spin": Action(self._spin, {})}

    def _spin(self, run):
        raise KeyError("no\\nspin")
"""


def trees(plugin: Any) -> list[ast.Module]:
    return [ast.parse(path.read_text()) for path in (ROOT / "plugins" / plugin.name / "src").rglob("*.py")]


def modules(tree: ast.Module) -> set[str]:
    """Names of the modules that a source file imports, of others than its own package."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module)
    return found


@each_plugin
def test_a_plugin_imports_no_other_plugin_and_nothing_of_the_mm(plugin: Any):
    own = plugin.entry_point.module.partition(".")[0]
    imported = {name for tree in trees(plugin) for name in modules(tree)}
    other = {name for name in imported if name.startswith("pfnmap_") and name.partition(".")[0] != own}
    assert other == set()
    assert {name for name in imported if name.startswith("pfnmap.mm")} == set()


@each_plugin
def test_a_plugin_calls_of_the_mm_what_it_says(plugin: Any):
    functions = {name for name in MmFunctions.__dataclass_fields__ if name.islower()}
    called = set()
    for tree in trees(plugin):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in functions:
                value = node.value
                whose = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")
                called |= {node.attr} if whose.endswith(("mm", "functions")) else set()
    assert set(offer(REGISTRY.load(plugin.kind, plugin.name)).consumes) == called


def scenario(path: Path, op: str) -> Path:
    path.write_text(f'[kernel]\nrelease = "6.12.117"\n\n[[step]]\nop = "{op}"\n')
    return path


def install(directory: Path) -> None:
    """Put a distribution with the toy plugin on the path."""
    info = directory / "pfnmap_toy-1.0.dist-info"
    info.mkdir(parents=True)
    (directory / "pfnmap_toy.py").write_text(TOY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pfnmap-toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pfnmap.driver]\ntoy = pfnmap_toy:Plugin\n")


def test_a_plugin_that_raises_in_an_action_ends_the_run_with_its_name_in_one_line(process: Any, tmp_path: Path):
    install(tmp_path / "site")
    done = process("run", str(scenario(tmp_path / "s.toml", "toy.spin")), env={"PYTHONPATH": str(tmp_path / "site")})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "plugin toy: toy.spin raised KeyError" in line
    assert "Traceback" not in done.stdout + done.stderr


def test_an_action_of_a_plugin_that_is_switched_off_or_misspelt_is_told(process: Any, tmp_path: Path):
    path = str(scenario(tmp_path / "s.toml", "kvm.map"))
    off = process("run", path, env={"PFNMAP_PLUGINS": "x86_64,vfio_pci"})
    assert off.returncode == 2
    assert "op 'kvm.map' is an action of plugin 'kvm', which is disabled: not in PFNMAP_PLUGINS" in off.stderr
    wrong = process("run", str(scenario(tmp_path / "s.toml", "kvm.mapp")))
    assert wrong.returncode == 2
    assert "unknown action of kvm" in wrong.stderr
    assert "'mapp'; did you mean 'map'?" in wrong.stderr
    misspelt = process("run", str(scenario(tmp_path / "s.toml", "kvn.map")))
    assert "plugin 'kvn', which is not installed; did you mean 'kvm'?" in misspelt.stderr


def test_a_plugin_of_this_repository_that_is_not_installed_is_told_how_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.syspath_prepend(tmp_path)  # of another path, nothing is known from before
    monkeypatch.setattr("pfnmap.plugins.discovery.entry_points", lambda: EntryPoints(()))
    assert why_not_linked("kvm", "x86_64") == "which is not installed; pip install pfnmap-kvm"
    assert why_not_linked("nvgrace_gpu", "x86_64") == "which is not installed; pip install pfnmap-nvgrace-gpu"
    assert why_not_linked("kvn", "x86_64") == "which is not installed"


def test_a_kernel_without_kvm_does_not_know_its_actions():
    with pytest.raises(BadInput, match="plugin 'kvm', which is not linked"):
        Run(Kernel.link("x86_64", ["vfio_pci"], release="6.12.117"), []).step(Step("kvm.map", {}, where="step 0"))
