"""The lines of the serial port that are not the kernel's: requests to the guest's init, and its answers.

A request is ``@pfnmap SEQ CRC text``, an answer several lines ``@pfnmap SEQ INDEX CRC text``, of which the last says
``end``. CRC is the CRC-32 of what stands before and after it. Kernel messages may stand between the lines or cut one in
two; a line that does not check is no line, and whoever lacks one asks again under the same number.
"""

from __future__ import annotations

import re
from zlib import crc32

__all__ = ["END", "MAGIC", "Answer", "request_line"]

MAGIC = "@pfnmap"
END = "end"

_LINE = re.compile(rf"{MAGIC} (\d+) (\d+) ([0-9a-f]{{8}}) ([^\r\n]*)")
_MAX_INDEX = 1 << 16


def request_line(seq: int, text: str) -> bytes:
    """Return a request as it goes over the line. Raises ValueError for a text of more than one line."""
    if not text.isprintable():
        raise ValueError(f"{text!r} does not fit in a request")
    return f"{MAGIC} {seq} {crc32(f'{seq} {text}'.encode()):08x} {text}\n".encode()


class Answer:
    """The answer to request `seq`, as far as it came: it is fed whatever the port gave."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self._lines: dict[int, str] = {}

    def take(self, line: str) -> bool:
        """Take a line; return whether it was one of an answer (of this or an earlier one), not a message."""
        found = _LINE.search(line)
        if found is None:
            return False
        seq, index, crc, text = int(found[1]), int(found[2]), int(found[3], 16), found[4]
        if crc32(f"{seq} {index} {text}".encode()) != crc:
            return False
        if seq == self.seq and index <= _MAX_INDEX:
            self._lines[index] = text
        return True

    @property
    def complete(self) -> bool:
        """Whether the last line is there and none before it is missing."""
        last = max(self._lines, default=-1)
        return last >= 0 and self._lines[last] == END and len(self._lines) == last + 1

    @property
    def ended(self) -> bool:
        """Whether the last line is there, be it that others are missing."""
        return END in self._lines.values()

    @property
    def lines(self) -> list[str]:
        """The lines before ``end``."""
        return [self._lines[index] for index in sorted(self._lines)][:-1]
