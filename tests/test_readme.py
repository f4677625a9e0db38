"""What README.md and the pages of docs/ show is what the commands print.

Run as a script, this writes the outputs anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
ELSEWHERE = ("series.md", "write-an-architecture.md", "write-a-driver.md")
"""Pages whose tests are their own."""
PAGES = [README, *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name not in ELSEWHERE)]
_BLOCK = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)
_SETUP = re.compile(r"(?<=```sh\n).*?(?=```)", re.DOTALL)


def console_blocks(text: str) -> Iterator[list[tuple[str, str]]]:
    """Yield the commands of each console block with the output that it shows."""
    for block in _BLOCK.findall(text):
        parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)
        yield list(zip(parts[1::2], parts[2::2], strict=True))


def shown(command: str, directory: Path) -> str:
    """Run a command as a reader would, in a terminal of 120 columns; return what it prints, without trailing blanks."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env={**os.environ, "PATH": path, "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return "".join(f"{line.rstrip()}\n" for line in result.stdout.splitlines())


def workspace(directory: Path) -> Path:
    """Make a directory look like the workspace, so that commands may write into it."""
    for name in ("examples", "plugins", "tests"):
        (directory / name).symlink_to(ROOT / name)
    return directory


@pytest.mark.parametrize(
    "block", [block for page in PAGES for block in console_blocks(page.read_text())], ids=lambda block: block[0][0]
)
def test_a_shown_output_is_what_the_commands_print(block, tmp_path):
    directory = workspace(tmp_path)
    for command, output in block:
        assert shown(command, directory) == output, "python tests/test_readme.py writes it anew"


def test_ci_runs_the_test_command(root):
    """.ci/run makes the same environment elsewhere, with the tools for lint and types beside."""
    command = next(block for block in _SETUP.findall(README.read_text()) if "pytest" in block)
    script = (root / ".ci" / "run").read_text()
    for part in command.replace(".venv/bin/pytest", '"$venv/bin/pytest"').split("&&"):
        part = part.strip().replace("python3", '"$python"').replace(" .venv", ' "$venv"')
        assert part in script


def test_every_link_leads_somewhere(root):
    for path in [README, *root.glob("docs/**/*.md"), *root.glob("*/README.md"), *root.glob("plugins/*/README.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
            assert "://" in target or (path.parent / target).exists(), f"{path}: {target}"


def test_every_command_has_its_row_in_the_contract(root):
    rows = re.findall(r"^\| `pfnmap (\w+)", (root / "docs" / "CLI.md").read_text(), re.MULTILINE)
    projects = [tomli.loads(path.read_text())["project"] for path in root.glob("*/pyproject.toml")]
    projects += [tomli.loads(path.read_text())["project"] for path in root.glob("plugins/*/pyproject.toml")]
    named = {name for one in projects for name in one.get("entry-points", {}).get("pfnmap.command", {})}
    assert set(rows) == named


def test_the_example_of_the_scenario_page_gives_what_it_expects(root, pfnmap, tmp_path):
    (example,) = re.findall(r"```toml\n(.*?)```", (root / "docs" / "scenarios.md").read_text(), re.DOTALL)
    scenario = tmp_path / "example.toml"
    scenario.write_text(example)
    result = pfnmap("run", scenario)
    assert result.exit_code == 0, result.output


def test_the_python_of_the_core_page_prints_what_it_says(root, process):
    text = (root / "core" / "README.md").read_text()
    code = textwrap.dedent(text[text.index("    from pfnmap") : text.index("prints `")])
    assert process(code=code).stdout.strip() in text.partition("prints `")[2]


def _rewrite() -> None:
    for page in map(Path, sys.argv[1:]) if sys.argv[1:] else PAGES:
        text = page.read_text()
        with tempfile.TemporaryDirectory() as scratch:
            directory = workspace(Path(scratch))
            blocks = [
                "".join(f"$ {command}\n{shown(command, directory)}" for command, _ in block)
                for block in console_blocks(text)
            ]
        page.write_text(_BLOCK.sub(lambda _, blocks=blocks: blocks.pop(0), text))


if __name__ == "__main__":
    _rewrite()
