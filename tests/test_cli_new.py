"""``pfnmap new``: a package that is discovered, whose tests name what is to be written, and that overwrites nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pfnmap import Unwritten

UNWRITTEN = re.compile(r'raise Unwritten\("(\w+)"\)')
MODULES = {"arch": "arch.py", "driver": "driver.py"}


@pytest.fixture(params=["arch", "driver"])
def kind(request):
    return request.param


@pytest.fixture
def made(answer, kind, tmp_path):
    """A new package, and what the command says of it."""
    return answer("new", kind, "my_toy", tmp_path / "made")


def on_path(package: Path) -> str:
    """Do what an editable install does: return the directories to put on the path."""
    site = package.parent / "site"
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    points = "".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in rows.items())
        for group, rows in project["entry-points"].items()
    )
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    return os.pathsep.join(map(str, (site, package / "src")))


def test_the_files_that_it_lists_are_those_that_are_there(made, kind, tmp_path):
    assert (made["kind"], made["name"], made["distribution"]) == (kind, "my_toy", "pfnmap-my-toy")
    there = [path for path in (tmp_path / "made").rglob("*") if path.is_file()]
    assert sorted(made["files"]) == sorted(map(str, there))
    assert {path.name for path in there} >= {"pyproject.toml", "README.md", "Kconfig", "test_conformance.py"}


def test_without_a_directory_it_is_named_after_the_distribution(pfnmap, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = pfnmap("new", kind, "my_toy")
    assert result.exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["pfnmap-my-toy"]
    assert all((tmp_path / line).is_file() for line in result.stdout.splitlines())


def test_it_is_discovered_and_not_broken(made, process, kind, tmp_path):
    result = process("plugins", "--json", env={"PYTHONPATH": on_path(tmp_path / "made")})
    (found,) = [plugin for plugin in json.loads(result.stdout)["plugins"] if plugin["name"] == "my_toy"]
    assert (found["kind"], found["status"], found["distribution"]) == (kind, "ok", "pfnmap-my-toy")
    assert "kconfig" in found["hooks"]


def test_its_tests_fail_in_what_is_still_to_be_written_and_in_nothing_else(made, kind, root, tmp_path):
    package = tmp_path / "made"
    stubs = UNWRITTEN.findall((package / "src" / "pfnmap_my_toy" / MODULES[kind]).read_text())
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rf", package],
        cwd=package,
        env={**os.environ, "PYTHONPATH": on_path(package), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stdout + result.stderr
    failed = re.findall(r"^FAILED .*\[(?:.*-)?written-(\w+)\]", result.stdout, re.MULTILINE)
    assert failed == stubs != []
    assert re.search(rf"\b{len(stubs)} failed\b", result.stdout)
    assert " error" not in result.stdout.splitlines()[-1]
    headings = re.findall(r"^### (\w+)$", (root / "docs" / "hooks.md").read_text(), re.MULTILINE)
    for name in stubs:
        assert f"{Unwritten(name)}: " in result.stdout  # and then what it has to answer
        assert name in headings


@pytest.mark.parametrize("name", ["", "X", "my-toy", "64toy", "../toy", "toy/64", "class", "a__b", "_a", "ä", "mmu"])
def test_a_name_that_cannot_be_one_is_refused_in_one_line(refused, kind, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no name for a plugin" in refused("new", kind, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x86_64", "vfio_pci"])
def test_the_name_of_a_plugin_that_is_there_is_refused(refused, kind, name, tmp_path):
    assert f"of pfnmap-{name.replace('_', '-')}" in refused("new", kind, name, tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(refused, kind, tmp_path):
    (tmp_path / "mine").write_text("mine")
    assert "nothing is overwritten" in refused("new", kind, "my_toy", tmp_path)
    assert str(tmp_path / "mine") in refused("new", kind, "my_toy", tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_second_time_changes_nothing(made, refused, kind, tmp_path):
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    refused("new", kind, "my_toy", tmp_path / "made")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_another_kind_is_named_in_one_line(refused):
    assert "known: arch, driver" in refused("new", "vmm", "my_toy")
