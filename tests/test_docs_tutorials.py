"""The tutorials are executed from the first line to the last: every command gives what the page shows.

A ``console`` block holds commands and their output. A ``python``, ``kconfig`` or ``toml`` block says in its first line
where it goes: "# FILE: above the class", "# FILE: in the class" (its methods take the place of those of the same names)
or "# FILE" (all of it).

Run as a script, this writes the outputs anew.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "docs" / name for name in ("write-an-architecture.md", "write-a-driver.md")]
_BLOCK = re.compile(r"^```(console|python|kconfig|toml)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PLACE = re.compile(r"# (\S+?)(?:: (above the class|in the class))?\n")


class Block(NamedTuple):
    """A block of a page: its language, its text, and where the text stands in the page."""

    language: str
    text: str
    start: int
    end: int


def blocks(page: str) -> Iterator[Block]:
    """Yield the blocks of a page."""
    for match in _BLOCK.finditer(page):
        yield Block(match[1], match[2], match.start(2), match.end(2))


class Reader:
    """Somebody who does what a page says, in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.site = directory / ".site"
        self.site.mkdir()
        self.sources = [self.site]

    def do(self, block: Block) -> str:
        """Do what a block says; return its text as it should be."""
        if block.language == "console":
            parts = re.split(r"^\$ (.*)\n", block.text, flags=re.MULTILINE)
            return "".join(f"$ {command}\n{self.run(command)}" for command in parts[1::2])
        place = _PLACE.match(block.text)
        assert place, block.text
        self.write(self.directory / place[1], block.text[place.end() :], place[2] or "")
        return block.text

    def run(self, command: str) -> str:
        """Run a command in a terminal of 120 columns and return its output."""
        if command.startswith("pip install "):
            self.install(self.directory / command.split()[-1])
            return ""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        result = subprocess.run(
            ["bash", "-c", command],
            cwd=self.directory,
            env={**os.environ, "PATH": path, "COLUMNS": "120", "PYTHONPATH": os.pathsep.join(map(str, self.sources))},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return "".join(f"{line.rstrip()}\n" for line in result.stdout.splitlines())

    def install(self, package: Path) -> None:
        """What ``pip install -e`` does, without a network: the source on the path, and the entry points known."""
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        name, version = project["name"].replace("-", "_"), project["version"]
        info = self.site / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n")
        groups = project["entry-points"].items()
        lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in groups]
        (info / "entry_points.txt").write_text("".join(lines))
        self.sources.append(package / "src")

    def write(self, path: Path, text: str, where: str) -> None:
        """Put the text of a block where it belongs."""
        if where == "above the class":
            path.write_text(
                re.sub(r"^(?=class )", lambda _: f"{text.strip()}\n\n\n", path.read_text(), count=1, flags=re.MULTILINE)
            )
        elif where == "in the class":
            path.write_text(in_the_class(path.read_text(), text))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def in_the_class(source: str, text: str) -> str:
    """Return a module with members of its class replaced by those of the same names in a text; new ones come last."""
    lines = source.splitlines()
    new = {name: text.splitlines()[first - 1 : last] for name, first, last in _members(ast.parse(text).body)}
    (body,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    for name, first, last in reversed(_members(body.body)):
        if name in new:
            lines[first - 1 : last] = _indented(new.pop(name))
    for member in new.values():
        lines += ["", *_indented(member)]
    return "\n".join(lines) + "\n"


def _members(body: list[ast.stmt]) -> list[tuple[str, int, int]]:
    """Return (name, first line, last line) of the functions and assignments of a body."""
    found = []
    for node in body:
        if isinstance(node, ast.FunctionDef):
            found.append((node.name, min([node, *node.decorator_list], key=lambda n: n.lineno).lineno, node.end_lineno))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            assert isinstance(target, ast.Name)
            found.append((target.id, node.lineno, node.end_lineno))
    return [(name, first, last) for name, first, last in found if last is not None]


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" if line else "" for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_does_what_it_says_from_the_first_line_to_the_last(page: Path, tmp_path: Path):
    reader = Reader(tmp_path)
    for block in blocks(page.read_text()):
        assert reader.do(block) == block.text, "python tests/test_docs_tutorials.py writes it anew"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_ends_with_nothing_left_to_be_written(page: Path):
    last = [block for block in blocks(page.read_text()) if "pfnmap check" in block.text][-1]
    output = [line for line in last.text.splitlines() if not line.startswith("$ ")]
    assert output
    assert not any("failed" in line or "waiting" in line for line in output)


def write_anew() -> None:
    """Write the outputs of the pages as they are now."""
    for page in PAGES:
        text = page.read_text()
        with tempfile.TemporaryDirectory() as directory:
            reader = Reader(Path(directory))
            done = [(block, reader.do(block)) for block in blocks(text)]
        for block, now in reversed(done):
            text = text[: block.start] + now + text[block.end :]
        page.write_text(text)


if __name__ == "__main__":
    write_anew()
