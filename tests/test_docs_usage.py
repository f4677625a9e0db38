"""Commands that the pages name and that no test can run, for they need root, QEMU or a real host: their options exist.

They stand indented; what stands in a ``console`` block is run (tests/test_readme.py).
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import typer

from pfnmap.cli.commands import Commands
from pfnmap.cli.options import Settings

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("plugins/*/README.md")]
SHOWN = sorted(
    {line for page in PAGES for line in re.findall(r"^ {4}(pfnmap [a-z].*)$", page.read_text(), re.MULTILINE)}
)


@cache
def options(name: str) -> frozenset[str]:
    settings = Settings()
    command = Commands(lambda: settings.registry)[name]
    context = command.context_class(command, info_name=name, obj=settings)
    assert isinstance(command, typer.core.TyperCommand)
    return frozenset(word for parameter in command.get_params(context) for word in parameter.opts)


def test_there_are_such_commands():
    assert len(SHOWN) > 30


@pytest.mark.parametrize("line", SHOWN)
def test_a_shown_command_and_its_options_exist(line: str):
    for part in re.split(r"[|;&]+", line.partition(" #")[0]):
        words = part.split()
        if words[:1] == ["pfnmap"]:
            assert {word for word in words if re.fullmatch(r"--[a-z][a-z-]*", word)} <= options(words[1])
