"""pfnmap.scaffold: what it writes is complete, imports, and fails exactly in what is still to be written."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pfnmap import Arch, BadInput, Driver
from pfnmap.contract.pgtable_ops import OPTIONAL_OPS
from pfnmap.hookspecs import ENTRY_HOOKS
from pfnmap.scaffold import KINDS, Kind, write_package
from pfnmap.testing.kit import arch_kit, driver_kit
from pfnmap.testing.reference import sentence

UNWRITTEN = re.compile(r'raise Unwritten\("(\w+)"\)')


def plugin_class(folder: Path, kind: Kind, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import what the entry point of a written package names, from its source, which counts as installed."""
    monkeypatch.syspath_prepend(str(folder / "src"))
    importlib.invalidate_caches()
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / "src" / f"{project['name'].replace('-', '_')}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1.0\n")
    points = project["entry-points"][f"pfnmap.{kind}"]
    (info / "entry_points.txt").write_text(f"[pfnmap.{kind}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()))
    module, _, attribute = project["entry-points"][f"pfnmap.{kind}"][name].partition(":")
    for loaded in [m for m in sys.modules if m.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["toy64", "a", "my_other_thing", "arch", "driver", "x86_64_v2"])
def test_a_package_of_any_allowed_name_can_be_imported(kind: Kind, name: str, tmp_path: Path, monkeypatch: Any):
    files = write_package(kind, name, tmp_path / "made")
    assert len(files) == (7 if kind == "arch" else 6)
    plugin = plugin_class(tmp_path / "made", kind, name, monkeypatch)
    assert issubclass(plugin, Arch if kind == "arch" else Driver)
    assert plugin.name == name
    assert plugin().kconfig(lambda change: True).count("config ") >= 1
    assert not any("@" + word in file.read_text() for file in files for word in ("NAME", "CLASS", "DIST", "SYMBOL"))


def test_an_architecture_fails_exactly_in_its_unwritten_methods(tmp_path: Path, monkeypatch: Any):
    write_package("arch", "toy64", tmp_path)
    plugin = plugin_class(tmp_path, "arch", "toy64", monkeypatch)
    stubs = UNWRITTEN.findall((tmp_path / "src/pfnmap_toy64/arch.py").read_text())
    results = list(arch_kit(plugin).results())
    failed = [result for result in results if not result.good]
    assert [result.case.id for result in failed] == [f"written-{name}" for name in stubs]
    assert {result.status for result in results if result.good} == {"waiting"}
    for result in failed:
        name = result.case.check.name.removeprefix("written-")
        assert result.detail == f"{name} is still to be written (docs/hooks.md#{name})"
        assert result.case.check.reason == sentence(name) != ""


def test_a_driver_fails_exactly_in_its_unwritten_methods(tmp_path: Path, monkeypatch: Any):
    write_package("driver", "toydrv", tmp_path)
    results = list(driver_kit(plugin_class(tmp_path, "driver", "toydrv", monkeypatch)).results())
    failed = [r.case.id for r in results if not r.good]
    assert failed == [f"written-{name}" for name in ("probe", "mmap_offset", "mmap", "fault", "huge_fault")]
    assert {r.status for r in results} == {"failed", "waiting", "passed"}


def test_the_skeleton_of_an_architecture_has_all_that_one_with_huge_pfnmaps_needs(tmp_path: Path):
    write_package("arch", "toy64", tmp_path)
    stubs = set(UNWRITTEN.findall((tmp_path / "src/pfnmap_toy64/arch.py").read_text()))
    assert stubs - set(ENTRY_HOOKS) - OPTIONAL_OPS.keys() - Arch.__abstractmethods__ == {"word_format"}
    assert stubs >= Arch.__abstractmethods__
    special = {f"{level}_{op}" for level in ("pte", "pmd", "pud") for op in ("special", "mkspecial", "pgprot")}
    assert stubs >= special


def test_the_skeleton_marks_hooks_and_only_hooks(tmp_path: Path):
    write_package("arch", "toy64", tmp_path)
    text = (tmp_path / "src/pfnmap_toy64/arch.py").read_text()
    marked = re.findall(r"@hookimpl\n    def (\w+)", text)
    assert set(marked) == (set(UNWRITTEN.findall(text)) & set(ENTRY_HOOKS)) | {"kconfig"}


@pytest.mark.parametrize(
    "name", ["", "X", "toy-64", "64toy", "../toy", "toy/64", "class", "a__b", "_a", "a_", "toy64\n", "ä", "a" * 41]
)
def test_a_bad_name_is_refused_and_nothing_is_written(name: str, tmp_path: Path, monkeypatch: Any):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="no name for a plugin"):
        write_package("arch", name)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_ever_overwritten(tmp_path: Path):
    folder = tmp_path / "pkg"
    folder.mkdir()
    (folder / "README.md").write_text("mine")
    with pytest.raises(BadInput, match="not empty"):
        write_package("arch", "toy64", folder)
    assert [path.name for path in folder.iterdir()] == ["README.md"]
    assert (folder / "README.md").read_text() == "mine"
    with pytest.raises(BadInput, match=r"README\.md"):
        write_package("arch", "toy64", folder / "README.md")


def test_an_empty_folder_is_taken_and_a_missing_one_made(tmp_path: Path, monkeypatch: Any):
    monkeypatch.chdir(tmp_path)
    assert {f.parts[0] for f in write_package("arch", "my_toy")} == {"pfnmap-my-toy"}
    (tmp_path / "empty").mkdir()
    assert write_package("driver", "toy", tmp_path / "empty")
    assert write_package("driver", "toy", tmp_path / "not" / "yet")
