"""`pfnmap report` as a command: from a file and from another command, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"


def report(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = "from pfnmap.cli import main; main()"
    words = [sys.executable, "-c", code, "report", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


def test_a_page_is_made_of_a_file_and_is_not_written_over(tmp_path: Path):
    page = tmp_path / "page.html"
    done = report("-o", page, "--from", DATA / "plan.json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    first = page.read_bytes()
    again = report("-o", page, "--from", DATA / "run.json")
    assert again.returncode == 2
    assert again.stderr == f"pfnmap: {page}: is there already; --force writes over it\n"
    assert page.read_bytes() == first
    assert report("-o", page, "--from", DATA / "run.json", "--force").returncode == 0
    assert page.read_bytes() != first
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"schema": "pfnmap-plan/2"}', "cannot be drawn"),
        ('{"schema": "pfnmap-plan/1", "kernel": {}, "sweep": {}}', "a sweep; plan --sweep with -o FILE.svg draws it"),
        ('{"schema": "pfnmap-plan/1", "kernel": {"arch": "x"}, "mappings": []}', "says: KeyError: 'release'"),
        ("no JSON", ""),
    ],
)
def test_what_cannot_be_drawn_is_one_line_and_no_file(content: str, said: str, tmp_path: Path):
    (tmp_path / "in.json").write_text(content)
    done = report("-o", tmp_path / "page.html", "--from", tmp_path / "in.json")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line
    assert str(tmp_path / "in.json") in line
    assert not (tmp_path / "page.html").exists()


def test_a_command_that_fails_says_why_itself_and_nothing_is_written(tmp_path: Path):
    done = report("-o", tmp_path / "page.html", "run", tmp_path / "none.toml")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "none.toml: no such file" in line
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path):
    done = report("-o", tmp_path / "none" / "page.html", "--from", DATA / "plan.json")
    assert done.returncode == 2
    assert done.stderr == f"pfnmap: {tmp_path}/none/page.html: no directory to write it to\n"


def test_a_file_and_a_command_exclude_each_other(tmp_path: Path):
    done = report("-o", tmp_path / "page.html", "--from", DATA / "plan.json", "plan")
    assert done.returncode == 2
    assert "exclude each other" in done.stderr
