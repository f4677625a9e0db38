"""The fuzzer itself, briefly: what it found once stays mended, and it does find what is broken."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from random import Random

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from fuzz import CORPUS, fuzz  # noqa: E402
from mutate import mutated  # noqa: E402
from targets import TARGETS, Target, finding  # noqa: E402

FOUND = sorted(path for path in CORPUS.glob("*/*") if path.parent.name in TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_reads_its_seeds_and_survives_what_becomes_of_them(name):
    target = TARGETS[name]
    seeds = list(target.inputs())
    assert seeds
    end = time.process_time() + 0.5
    random = Random(name)
    while time.process_time() < end:
        data = mutated(seeds, target.words, random)
        assert finding(target, data) is None, data


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_once_stays_mended(path):
    assert finding(TARGETS[path.parent.name], path.read_bytes()) is None


def test_a_target_that_breaks_is_found_and_kept(monkeypatch, tmp_path, capsys):
    def read(data: bytes) -> None:
        if b"\0" in data:
            raise KeyError("NUL")

    monkeypatch.setitem(TARGETS, "broken", Target(read, (b"seed " * 20,)))
    monkeypatch.setattr("fuzz.CORPUS", tmp_path)
    count, found = fuzz("broken", 1, 0)
    assert count > 10
    assert found == 1
    (kept,) = (tmp_path / "broken").iterdir()
    assert b"\0" in kept.read_bytes()
    assert "KeyError" in capsys.readouterr().out


def test_errors_are_one_line():
    def read(data: bytes) -> None:
        from pfnmap.errors import BadInput

        raise BadInput("a", "b\nc")

    assert finding(Target(read, (b"",)), b"") is not None
