"""docs/series.md is executed: every command shows what stands under it, every Python block runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

TEXT = (ROOT / "docs" / "series.md").read_text()
COMMANDS = [
    (command, lines.splitlines())
    for block in re.findall(r"^```console\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    for command, lines in re.findall(r"^\$ pfnmap (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
]


@pytest.mark.parametrize(("command", "lines"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_a_command_shows_what_stands_under_it(pfnmap, monkeypatch, root, command, lines):
    monkeypatch.chdir(root)
    expected = [line for line in lines if not line.startswith("exit ")]
    (code,) = [int(line[5:]) for line in lines if line.startswith("exit ")] or [0]
    result = pfnmap(*shlex.split(command))
    assert result.exit_code == code, result.output
    shown = " ".join(result.output.split())
    at = 0
    for line in expected:
        at = shown.find(" ".join(line.split()), at)
        assert at >= 0, (line, result.output)


def test_the_python_blocks_run():
    names: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "series.md", "exec"), names)


def test_every_patch_has_its_place():
    told = {int(n) for heading in re.findall(r"^### (\d.*)$", TEXT, re.MULTILINE) for n in re.findall(r"\d+", heading)}
    assert told >= {*range(1, 11), *range(15, 20)}
