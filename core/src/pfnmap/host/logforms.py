"""The forms that a kernel's log of changes comes in, read into the commits that it lists, newest first.

* `git log` in its default form (and ``--format=short``, ``full``, ``fuller``; diffs and notes are passed over), as
  which kernel.org's ChangeLog-X.Y.Z are written, too;
* ``git log --format='%H%n%s%n%b'``, or with ``%h``;
* ``git log --oneline``, ``--format=reference``: subjects alone;
* Debian's and Ubuntu's changelogs (deb-changelog(5)) and those of RPM packages (``rpm -q --changelog``, SUSE's
  ``.changes``): items below the version that brought them. They need not name every commit, name none by its id
  and say of several items of one version not which came first.

The first line that is not empty tells which it is; colours, and in front of it a prompt with its command or a fence,
are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import BinaryIO, Final

from pfnmap.errors import BadInput

__all__ = ["FORMAT", "Commit", "Log", "read_log"]

FORMAT: Final = "git log --format='%H%n%s%n%b'"
_EXPECTED: Final = f"{FORMAT} (or plain, or --oneline), a ChangeLog of kernel.org, a Debian, Ubuntu or RPM changelog"

_MAX_LOG: Final = 8 << 30
_MAX_MESSAGE: Final = 4 << 20
_PIECE: Final = 1 << 16
_MANY_LINES: Final = 1 << 20
_SHORT_LINE: Final = 16
"""So many lines are of so many bytes on average at least in any log; each line takes time, however short."""
_MAX_SUBJECT: Final = 1024
"""Bytes of a subject that are looked at; what is longer is no change that anybody knows by its subject."""
_MAX_REMARKS: Final = 16
"""Remarks behind a changelog's item that are looked past."""

_LONG_ID: Final = re.compile(rb"[0-9a-f]{40}|[0-9a-f]{64}")
_SHORT_ID: Final = re.compile(rb"[0-9a-f]{7,64}")
_COMMIT: Final = re.compile(rb"commit ([0-9a-f]{7,64})(?: [0-9a-f]{7,64}| \(.*\))*")
_REFS: Final = rb"\((?:tag: )?[^\s()]+(?:(?: -> |, )(?:tag: )?[^\s()]+)*\) "
_ONELINE: Final = re.compile(rb"([0-9a-f]{7,64}) (?:" + _REFS + rb")?(?:\((.*), \d{4}-\d\d-\d\d\)|\(\"(.*)\"\)|(.*))")
"""``%h %s``, with the names of refs or without, ``%h (%s, %as)``, and the kernel's own ``%h ("%s")``."""
_DEBIAN: Final = re.compile(rb"(\S+ \(([^()\s]+)\)) [^;]*;\s*\w+=.*")
_DAY: Final = rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ \d]\d? .*"
_RPM: Final = re.compile(rb"(?:\* )?(" + _DAY + rb"@.*)")
_RPM_VERSION: Final = re.compile(rb"[\[ ]v?(\d+\.\d+[^\s\[\]]*)\]?$")
_PASSED: Final = re.compile(rb"\s*|-{20,}|```\w*|(?:[^\s$#]\S*)?[$#] .*|\S+@\S+[$#] .*")
"""What may stand around a log: SUSE's rule, a fence, a command behind its prompt."""
_COLOUR: Final = re.compile(rb"\x1b\[[0-9;]*[mK]")
_BULLET: Final = re.compile(rb"\s*[*+-]\s+(.*)")
_UPSTREAM: Final = re.compile(r"(\d+\.\d+(?:\.\d+)?)(?:[~-](?:0\.)?(rc\d+))?")
_AREA: Final = re.compile(r"^(?:\[[^\[\]]*\]\s*)+")  # Debian's [arm64]
_REMARK: Final = re.compile(r"\s+(?:\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\})\.?$")  # (LP: #1), (bsc#1), [RHEL-1], {CVE-1}


@dataclass(slots=True)
class Commit:
    """One commit of a log, as far as it is told.

    `id` is empty in a changelog; `where` then names the version, and for a commit it is ``commit`` and its id. `line`
    (from 1) is where it begins, `subject_line` and `body_line` where those do. `whole` tells that the subject was not
    cut.
    """

    id: str
    where: str
    line: int
    subject: str = ""
    subject_line: int = 0
    whole: bool = False
    merge: bool = False
    body: list[bytes] = field(default_factory=list)
    body_line: int = 0
    size: int = 0

    def add(self, line: bytes, number: int, log: str) -> None:
        """Add a line of the message's body; raises BadInput for a message beyond all measure."""
        self.size += len(line) + 1
        if self.size > _MAX_MESSAGE:
            raise BadInput(
                log, f"the message of {self.where} (line {self.line}) is larger than {_MAX_MESSAGE >> 20} MiB"
            )
        self.body_line = self.body_line or number
        self.body.append(line)

    @property
    def subjects(self) -> Iterator[str]:
        """The subject, and what is left of a changelog's item without the remarks around it, one by one."""
        text = self.subject
        yield text
        if not self.id:
            text = " ".join(_AREA.sub("", text, count=1).split())
            yield text
            for _ in range(_MAX_REMARKS):
                text, before = _REMARK.sub("", text.removesuffix(".")), text
                if text == before:
                    return
                yield text


@dataclass(frozen=True, slots=True)
class Log:
    """`whole` tells that the form names every commit, `bodies` that it has the messages and not the subjects alone."""

    whole: bool
    bodies: bool
    commits: Iterator[Commit]


_Lines = Iterator[tuple[int, bytes, bool]]


def read_log(stream: BinaryIO, where: str) -> Log:
    """Return what a log lists; `where` names it in messages.

    Raises BadInput, at once or while the commits are gone through, for what is none of these forms.
    """
    lines = _lines(stream, where)
    for number, line, ended in lines:
        if not _PASSED.fullmatch(line):
            first = number, line, ended
            break
    else:
        return Log(True, True, iter(()))
    rest = chain((first,), lines)
    if _COMMIT.fullmatch(line):
        return Log(True, True, _default(rest, where))
    if _SHORT_ID.fullmatch(line):
        return Log(True, True, _formatted(rest, where))
    if _ONELINE.fullmatch(line):
        return Log(True, False, _oneline(rest, where))
    if _DEBIAN.fullmatch(line):
        return Log(False, False, _changelog(rest, _debian))
    if _RPM.fullmatch(line):
        return Log(False, False, _changelog(rest, _rpm))
    raise BadInput(where, f"line {number} begins no log of changes that is read: {_EXPECTED}")


def _lines(stream: BinaryIO, where: str) -> _Lines:
    """Yield number, line and whether a newline ended it; what exceeds a piece is cut off a line."""
    total, inside, number = 0, False, 0
    while piece := stream.readline(_PIECE):
        total += len(piece)
        if total > _MAX_LOG:
            raise BadInput(where, f"larger than {_MAX_LOG >> 30} GiB, which is the most that is read")
        if b"\0" in piece:
            raise BadInput(
                where, f"binary (a NUL byte near offset {total - len(piece)}), a log of changes was expected"
            )
        ended = piece.endswith(b"\n")
        if not inside:
            number += 1
            if not number % _MANY_LINES and total < number * _SHORT_LINE:
                what = f"{number} lines of fewer than {_SHORT_LINE} bytes on average, which no log of changes has"
                raise BadInput(where, what)
            line = piece.rstrip(b"\r\n")
            yield number, _COLOUR.sub(b"", line) if b"\x1b" in line else line, ended
        inside = not ended


def _text(line: bytes) -> str:
    return line[:_MAX_SUBJECT].decode("utf-8", "replace").strip()


def _longer(subject: str, line: bytes) -> str:
    """Return a subject that goes on over another line."""
    return f"{subject} {_text(line)}".strip() if len(subject) < _MAX_SUBJECT else subject


def _commit(id: bytes, line: int) -> Commit:
    return Commit(id.decode(), f"commit {id[:12].decode()}", line)


def _formatted(lines: _Lines, where: str) -> Iterator[Commit]:
    """Yield the commits whose subject is in the log; the last one may be cut anywhere."""
    commit: Commit | None = None
    subject_next, blank, short = False, True, False
    for number, line, ended in lines:
        if subject_next and commit:
            commit.subject, commit.subject_line, commit.whole = _text(line), number, ended
            commit.merge = commit.subject.startswith("Merge ")
            subject_next = False
        elif (len(line) in (40, 64) and _LONG_ID.fullmatch(line)) or (
            (short or commit is None) and blank and _SHORT_ID.fullmatch(line)
        ):
            if commit:
                yield commit
            else:  # Written with %h? A body may hold short lines of digits, so they count only in such a log.
                short = not _LONG_ID.fullmatch(line)
            commit, subject_next = _commit(line, number), True
        elif commit:
            commit.add(line, number, where)
        blank = not line
    if commit and not subject_next:
        yield commit


def _default(lines: _Lines, where: str) -> Iterator[Commit]:
    """Yield the commits of git's own form: headers, an empty line, and the message four columns in."""
    commit: Commit | None = None
    part = "header"
    for number, line, ended in lines:
        if match := _COMMIT.fullmatch(line):
            if commit and commit.subject:
                yield commit
            commit, part = _commit(match[1], number), "header"
        elif commit is None or part == "passed":
            continue
        elif not line.startswith(b"    "):
            commit.merge = commit.merge or (part == "header" and line.startswith(b"Merge:"))
            if part == "subject" and not line:
                part = "body"
            elif part == "body" and not line:  # the message's end, or an empty line of it that lost its blanks
                commit.add(b"", number, where)
            elif part != "header":
                part = "passed"  # notes, a diff
        elif part == "body":
            commit.add(line[4:], number, where)
        elif part == "subject" and not line.strip():
            part = "body"
        else:
            commit.subject_line = commit.subject_line or number
            commit.subject = _longer(commit.subject, line)
            commit.merge = commit.merge or commit.subject.startswith("Merge ")
            commit.whole, part = ended, "subject"
    if commit and commit.subject:
        yield commit


def _oneline(lines: _Lines, where: str) -> Iterator[Commit]:
    for number, line, ended in lines:
        match = _ONELINE.fullmatch(line)
        if match is None:
            if ended and not _PASSED.fullmatch(line):
                raise BadInput(where, f"line {number} is no commit and its subject, as the lines before it are")
            continue
        commit = _commit(match[1], number)
        commit.subject, commit.subject_line, commit.whole = _text(match[2] or match[3] or match[4]), number, ended
        commit.merge = commit.subject.startswith("Merge ")
        yield commit


def _changelog(lines: _Lines, header: Callable[[bytes], tuple[str, str] | None]) -> Iterator[Commit]:
    """Yield the items, each version's own release first ("Linux 6.1.192"); an item may go on over several lines."""
    where, commit = "", None
    for number, line, ended in lines:
        if found := header(line):
            if commit:
                yield commit
            where, version = found
            commit = None
            if release := _UPSTREAM.match(version):
                subject = "-".join(filter(None, ("Linux " + release[1], release[2])))
                yield Commit("", where, number, subject, number, ended)
        elif bullet := _BULLET.fullmatch(line):
            if commit:
                yield commit
            commit = Commit("", where, number, _text(bullet[1]), number, ended)
        elif commit and line.startswith(b" ") and line.strip() and not line.startswith(b" -- "):
            commit.subject, commit.whole = _longer(commit.subject, line), ended
        else:
            if commit:
                yield commit
            commit = None
    if commit:
        yield commit


def _debian(line: bytes) -> tuple[str, str] | None:
    match = _DEBIAN.fullmatch(line)
    return (_text(match[1]), _text(match[2])) if match else None


def _rpm(line: bytes) -> tuple[str, str] | None:
    match = _RPM.fullmatch(line)
    if not match:
        return None
    version = _RPM_VERSION.search(line)
    return _text(match[1]), _text(version[1]) if version else ""
