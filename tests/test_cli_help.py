"""Help, manual pages and completion come from one source; the examples that they show work."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys

import pytest

from pfnmap.cli.examples import examples
from pfnmap.cli.manpage import pages

EXAMPLES = examples()


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_an_example_works(pfnmap, root, monkeypatch, tmp_path, line):
    for name in ("examples", "plugins", "tests"):
        (tmp_path / name).symlink_to(root / name)
    monkeypatch.chdir(tmp_path)
    result = pfnmap(*shlex.split(line)[1:])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", EXAMPLES)
def test_help_ends_with_the_examples(pfnmap, command):
    said = " ".join(pfnmap(command, "--help").stdout.split())
    assert said.endswith(" ".join(" ".join(EXAMPLES[command]).split()))
    assert "<bool>" not in said


@pytest.mark.parametrize("command", EXAMPLES)
def test_usage_names_each_argument_once(pfnmap, command):
    usage = next(line for line in pfnmap(command, "--help").stdout.splitlines() if "Usage:" in line)
    assert "[[" not in usage
    assert "...}" not in usage


def test_the_list_of_commands_is_wrapped_once(pfnmap):
    """A line break of the source in the middle of a line that the terminal wraps leaves a short one."""
    text = pfnmap("--help", env={"COLUMNS": "100", "TERMINAL_WIDTH": "100"}).stdout
    assert "fleet    Summarise what `plan --batch` or `host --batch` wrote: hosts, devices, BARs by level" in text
    assert re.search(r"^. +reasons, and the fix that helps most hosts\. +.$", text, re.MULTILINE)


@pytest.fixture(scope="module")
def manual() -> dict[str, str]:
    return pages()


def test_every_command_has_a_manual_page_with_its_options(manual, pfnmap):
    options = {
        name: set(re.findall(r"^│ (?:\* +)?(--[a-z-]+)", pfnmap(name, "--help").stdout, re.MULTILINE))
        for name in EXAMPLES
    }
    for name, said in options.items():
        text = manual[f"pfnmap-{name}.1"].replace("\\-", "-")
        assert said
        assert [option for option in said if option not in text and option != "--help"] == []
        assert f"pfnmap-{name}" in manual["pfnmap.1"].replace("\\-", "-")


def test_the_manual_pages_are_proper_roff(manual, tmp_path):
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("no groff: apt-get install groff")
    for name, text in manual.items():
        (tmp_path / name).write_text(text)
        done = subprocess.run(
            [groff, "-man", "-ww", "-Tutf8", tmp_path / name], capture_output=True, text=True, check=True
        )
        assert done.stderr == "", name


def test_a_manual_page_has_a_date_and_begins_no_paragraph_below_a_heading(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    for text in pages().values():
        assert ' 1 "1970-01-02" ' in text.splitlines()[0]
        assert not re.search(r"^\.SH .*\n\.PP", text, re.MULTILINE)


def test_the_pages_are_written_where_one_says(tmp_path):
    words = [sys.executable, "-m", "pfnmap.cli.manpage", str(tmp_path / "man1")]
    subprocess.run(words, check=True, timeout=120)
    assert {"pfnmap.1", "pfnmap-plan.1"} <= {path.name for path in (tmp_path / "man1").iterdir()}


COMPLETIONS = {
    "bash": {"_PFNMAP_COMPLETE": "complete_bash", "COMP_WORDS": "pfnmap plan --adv", "COMP_CWORD": "2"},
    "zsh": {"_PFNMAP_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "pfnmap plan --adv"},
    "fish": {
        "_PFNMAP_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_ARGS": "pfnmap plan --adv",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    },
}


@pytest.mark.parametrize("shell", COMPLETIONS)
def test_a_shell_completes_options(process, shell):
    assert "--advise" in process(env=COMPLETIONS[shell]).stdout


@pytest.mark.parametrize("shell", COMPLETIONS)
def test_a_shell_gets_its_script(pfnmap, shell):
    assert "_PFNMAP_COMPLETE" in pfnmap("--show-completion", shell).stdout
