"""docs/findings: a page for each finding, which shows it under its number; its C programs compile.

That the commands print what the pages show is tested with all pages of docs/ (test_readme.py).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.stem: path.read_text() for path in (ROOT / "docs" / "findings").glob("F*.md")}
PROGRAMS = sorted((ROOT / "docs" / "findings").glob("*.c"))
TOLD = ("F1", "F2", "F3", "F4", "F5", "F21", "F22", "F23", "F25", "F26", "F27", "F28", "F29", "F30")
"""Findings that a run tells under their number; the others are ways of working, and nothing happens there."""


def test_every_finding_has_a_page_and_stands_in_the_index():
    table = (ROOT / "docs" / "evidence" / "FINDINGS.md").read_text()
    findings = re.findall(r"^\| (F\d+) \|", table, re.MULTILINE)
    assert sorted(findings) == sorted(PAGES)
    index = (ROOT / "docs" / "findings" / "index.md").read_text()
    assert re.findall(r"^\| \[(F\d+)\]\(\1\.md\) \|", index, re.MULTILINE) == findings


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_where_what_shows_it_and_whether_upstream_knows(name: str):
    text = PAGES[name]
    assert text.startswith(f"# {name}: ")
    assert "**Kernels**: " in text
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == ["In the model", "On a real kernel", "Evidence", "Upstream"]
    assert "```console" in text or "Not modelled" in text


@pytest.mark.parametrize("name", TOLD)
def test_the_scenario_of_a_finding_tells_its_number(pfnmap, monkeypatch, root: Path, name: str):
    monkeypatch.chdir(root)
    scenario = re.search(r"^\$ pfnmap run (\S+)", PAGES[name], re.MULTILINE)
    assert scenario is not None
    steps = json.loads(pfnmap("run", scenario[1], "--json").stdout)["steps"]
    assert name in [found for step in steps for found in step.get("findings", [])]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_compiles(path: Path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not Path("/usr/include/linux/vfio.h").exists():
        pytest.skip("no C compiler with linux/vfio.h")
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-unused-result", "-fsyntax-only"]
    result = subprocess.run([compiler, *flags, path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert f"[{path.name}]({path.name})" in PAGES[path.stem]
