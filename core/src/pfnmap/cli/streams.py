"""The standard streams and the terminal's size, as whoever starts a command leaves them."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from contextlib import suppress
from typing import BinaryIO, TextIO

__all__ = ["forget", "prepare", "write_lines"]

_SIZES = ("COLUMNS", "LINES", "TERMINAL_WIDTH")
_SIZE = re.compile(r"[1-9][0-9]{0,3}")


def prepare() -> None:
    """Make the streams take any text, and leave no size of a terminal that none can have. Exits with 2 where standard
    output is closed."""
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    if sys.stdout is None:
        print("pfnmap: standard output: closed", file=sys.stderr)
        sys.exit(2)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names that the locale's encoding does not have
        sys.stdout.reconfigure(errors="backslashreplace")
    for name in _SIZES:
        if not _SIZE.fullmatch(os.environ.get(name, "80")):
            del os.environ[name]


def write_lines(stream: BinaryIO, text: bytes) -> None:
    """Write lines, each of them whole: Ctrl-C waits until the one that is being written is."""
    for line in text.splitlines(keepends=True):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            stream.write(line)
            stream.flush()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def forget(stream: TextIO) -> None:
    """Let what a stream still holds go nowhere: it cannot be written, and Python would try so again when it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
