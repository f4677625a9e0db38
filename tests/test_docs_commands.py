"""docs/write-a-command.md: the command that it shows works as it says."""

from __future__ import annotations

import json
import re
import sys

import pytest


@pytest.fixture
def level(root, tmp_path, monkeypatch):
    """Install the command of the page."""
    page = (root / "docs" / "write-a-command.md").read_text()
    points, code = (re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL)[1] for kind in ("toml", "python"))
    (tmp_path / "pfnmap_level.py").write_text(code)
    folder = tmp_path / "pfnmap_level-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: pfnmap-level\nVersion: 1.0\n")
    points = points.replace('[project.entry-points."pfnmap.command"]', "[pfnmap.command]").replace('"', "")
    (folder / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("pfnmap_level", None)


@pytest.mark.parametrize(("arch", "answer"), [("x86_64", "yes"), ("riscv64", "no")])
def test_the_command_answers(level, pfnmap, arch, answer):
    result = pfnmap("level", "pud", "--arch", arch, "--release", "6.12.117")
    assert (result.stdout, result.exit_code) == (f"{answer}\n", {"yes": 0, "no": 1}[answer])


def test_its_document_has_schema_and_kernel(level, pfnmap):
    document = json.loads(pfnmap("level", "pmd", "--json").stdout)
    assert (document["schema"], document["kernel"]["arch"], document["pfnmap"]) == ("pfnmap-level/1", "x86_64", True)


def test_it_is_listed(level, pfnmap):
    rows = json.loads(pfnmap("plugins", "--json").stdout)["plugins"]
    assert [(row["kind"], row["distribution"]) for row in rows if row["name"] == "level"] == [
        ("command", "pfnmap-level")
    ]
    assert "Tell whether a pfnmap can have leaves of a level." in pfnmap("--help").stdout
