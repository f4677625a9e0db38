"""What reading a log costs, and what no log of a real tree has: every reading takes time as the log is long."""

import hashlib
import io
import time

import pytest

from pfnmap.errors import BadInput
from pfnmap.host import logforms
from pfnmap.host.gitlog import LogReport, read_gitlog

THP = "e384abeb559d10d6505aec053ede9368d81d4c71"
THP_SUBJECT = "mm/huge_memory: bypass THP tuneables for huge pfnmap mappings"


def read(text: str) -> LogReport:
    return read_gitlog(io.BytesIO(text.encode()), "log")


def _ids(count: int, start: str = "") -> list[str]:
    return [hashlib.sha1(f"{start}{n}".encode()).hexdigest() for n in range(count)]


def _bad_logs() -> dict[str, str]:
    ids = _ids(6000)
    picked = f"commit {THP} upstream."
    reverts = [f"{a}\nRevert it\n\nThis reverts commit {b}.\n" for a, b in zip(ids, _ids(6000, "r"), strict=True)]
    picks = [f"{id}\n{THP_SUBJECT}\n\n{picked}\n" for id in ids]
    one = f"{ids[0]}\nx\n\n"
    item = "linux (6.1.1-1) unstable; urgency=low\n\n  * "
    return {
        "picked again and again": "\n".join(picks),
        "reverts of others": "\n".join(reverts),
        "picked and reverted": "\n".join(line for pair in zip(picks, reverts, strict=True) for line in pair),
        "quoted": "\n".join(f"{id}\n" + 'Revert "' * 5000 + "x" + '"' * 5000 + "\n\n" for id in ids[:200]),
        "picked in one message": one + f"{picked}\n" * 50_000,
        "reverted in one message": one + f"This reverts commit {', '.join(ids * 6)}.\n" + "This reverts\n" * 50_000,
        "remarks": item + "\n  * ".join("x" + " (a)" * 8000 for _ in range(100)) + "\n",
        "blanks": item + "\n  * ".join("x" + " " * 60_000 + "y" for _ in range(20)) + "\n",
        "items of one letter": item + "\n* ".join("x" * 100_000),
        "versions": "a (6.1-1) u; u=l\n" * 50_000,
        "subjects of one letter": "".join(f"{id[:7]} x\n" for id in ids * 8),
        "an item that never ends": item + "x\n" + "    y y y y\n" * 100_000,
        "a subject that never ends": f"commit {ids[0]}\n\n" + "    y y y y\n" * 100_000,
    }


@pytest.mark.parametrize("log", [pytest.param(text, id=name) for name, text in _bad_logs().items()])
def test_what_is_read_costs_what_it_is_long(log: str):
    started = time.process_time()
    read(log)
    assert time.process_time() - started < 2


def test_ids_that_all_begin_alike_are_of_no_tree():
    text = "".join(f"abcdef0{n:033x}\n{THP_SUBJECT}\n\n" for n in range(200))
    with pytest.raises(BadInput, match="more than 100 commits whose ids begin with abcdef0"):
        read(text)


def test_more_short_lines_than_any_log_has_are_refused(monkeypatch):
    monkeypatch.setattr(logforms, "_MANY_LINES", 8)
    head = "linux (6.1.1-1) unstable; urgency=low\n\n"
    assert read(head + "  * a\n" * 2).commits == 3  # the version's own release is one
    with pytest.raises(BadInput, match="8 lines of fewer than 16 bytes on average"):
        read(head + "  * a\n" * 6)


def test_newest_release_is_told_of_many():
    found = read("".join(f"linux (6.{minor}.1-1) unstable; urgency=low\n\n" for minor in (6, 12, 9)))
    assert found.newest_release == "6.12.1"


def test_a_release_of_thousands_of_digits_is_none():
    assert read(f"{'0' * 40}\nLinux 6.{'9' * 5000}\n").newest_release is None
