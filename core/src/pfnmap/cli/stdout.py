"""sys.stdout while a command runs: answers alone reach it, and what plugins print goes to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from pfnmap.boundary import in_plugin

__all__ = ["Stdout", "answers", "keep_apart"]


class Stdout:
    """Stands for a stream; what is written to it goes to stderr where `kept` is true, or from within a plugin."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.kept = False

    def write(self, text: str) -> int:
        """Write a text to whom it is for."""
        return (sys.stderr if self.kept or in_plugin() else self.stream).write(text)

    def close(self) -> None:
        """Leave it open: whoever closes it is not the only one who writes to it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def keep_apart() -> Iterator[None]:
    """Let nothing reach stdout but what is written to `answers()`."""
    stdout = sys.stdout
    if isinstance(stdout, Stdout):
        stdout.kept = True
    try:
        yield
    finally:
        if isinstance(stdout, Stdout):
            stdout.kept = False


def answers() -> TextIO:
    """Return the stream that a command's answer goes to."""
    return sys.stdout.stream if isinstance(sys.stdout, Stdout) else sys.stdout
