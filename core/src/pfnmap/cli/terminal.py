"""The two streams of a command: answers go to stdout, warnings, errors and progress to stderr.

Text of other people's files is shown with its unprintable characters escaped, and never read as markup.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from pfnmap.cli.stdout import answers

if TYPE_CHECKING:
    from rich.console import Console
    from rich.tree import Tree

    from pfnmap.report.text import Table, Text

__all__ = [
    "beside_others",
    "complain",
    "counting",
    "heading",
    "only_kernel",
    "print_json",
    "progress_bar",
    "recorded_heading",
    "show",
    "styled",
    "table",
    "warn",
]

_SCREEN = 1000
"""Characters of an error's line that are shown."""
_PIPE_WIDTH = 240
"""Columns for a tree in a file or a pipe: nothing is to be folded there, and rich takes a pipe for 80 columns wide."""


_alone: Final[ContextVar[bool]] = ContextVar("alone", default=True)
"""Whether the terminal is this process's to draw on."""
_above: Final[ContextVar[Console | None]] = ContextVar("above", default=None)
"""What draws a progress bar on stdout's terminal, and what stands above it."""


def complain(text: object) -> None:
    """Print an error as one line on stderr, of a screen at most."""
    _say(f"pfnmap: {text}")


def warn(text: object) -> None:
    """Print a warning as one line on stderr, of a screen at most."""
    _say(f"pfnmap: warning: {text}")


def _say(text: str) -> None:
    from pfnmap.report.text import printable

    line = printable(" ".join(text.split()))
    if len(line) > _SCREEN:
        line = f"{line[: _SCREEN * 3 // 4]} ... {line[-_SCREEN // 5 :]}"
    with suppress(OSError):  # nobody reads it
        print(line, file=sys.stderr)


def print_json(command: str, document: Mapping[str, Any]) -> None:
    """Print the one JSON document of a command."""
    from pfnmap.report.json import dumps, schema

    print(dumps({"schema": schema(command), **document}), file=answers())


def styled(text: object, style: str) -> Text:
    """Return a text in a style, for `show` and `table`."""
    from pfnmap.report.text import Text

    return Text(str(text), style)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Collection[str] = ()) -> Table:
    """Return a table; the columns named in `numbers` are aligned right."""
    from pfnmap.report.text import Table, Text

    cells = ([cell if isinstance(cell, Text) else Text(str(cell)) for cell in row] for row in rows)
    return Table(columns, cells, numbers)


def show(*parts: str | Text | Table | Tree) -> None:
    """Print texts, tables and trees on stdout: as a terminal shows them, or plain where nobody says how wide it is."""
    from pfnmap.report.text import Table, Text, printable

    parts = tuple(printable(part) if isinstance(part, str) else part for part in parts)
    stdout, wide = answers(), "COLUMNS" in os.environ
    terminal = stdout.isatty()
    if not (terminal or wide) and all(isinstance(part, (str, Text, Table)) for part in parts):
        for part in parts:
            print(part, file=stdout)
        return
    console = _above.get() or _console()
    for part in parts:
        line = isinstance(part, str) or (isinstance(part, Text) and not part.indent)
        if terminal:
            console.print(part)
        else:
            with console.capture() as drawn:
                console.print(part, soft_wrap=line)
            print(*map(str.rstrip, drawn.get().splitlines()), sep="\n", file=stdout)


def _console() -> Console:
    """Return what draws on stdout."""
    from rich.console import Console

    width = None if answers().isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(file=answers(), width=width, markup=False, highlight=False, emoji=False)


def recorded_heading(kernels: Sequence[Mapping[str, Any]]) -> None:
    """Print which kernels an answer about several files holds for."""
    names = dict.fromkeys(f"{kernel['arch']} {kernel['release']}" for kernel in kernels)
    show(styled(f"{', '.join(names)}, as the files say", "bold"), "")


def only_kernel(kernels: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the ``"kernel"`` of a document on one kernel; nothing for several, which stand beside what they are of."""
    return {"kernel": dict(kernels[0])} if len(kernels) == 1 else {}


def heading(kernel: Mapping[str, Any]) -> None:
    """Print which kernel an answer holds for (`Kernel.describe`), and what of it nobody said."""
    from pfnmap.report.heading import assumed_lines, kernel_line

    show(styled(kernel_line(kernel), "bold"), *(styled(line, "dim") for line in assumed_lines(kernel)))


def beside_others() -> None:
    """Leave the terminal's progress bar to the process that started this one."""
    _alone.set(False)


@contextmanager
def progress_bar(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Show a progress bar where stderr is a terminal, below what `show` prints meanwhile; yield what to call with the
    number done so far."""
    if not sys.stderr.isatty() or not _alone.get():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    from pfnmap.report.text import printable

    console = _console() if answers().isatty() else Console(stderr=True)
    before = _above.set(console if answers().isatty() else None)
    try:
        with Progress(console=console, transient=True, redirect_stdout=False) as progress:
            task = progress.add_task(escape(printable(what)), total=total)
            yield lambda done: progress.update(task, completed=done)
    finally:
        _above.reset(before)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """Show on stderr, where that is a terminal and stdout is none, how many are done; yield what to call with it."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        yield lambda done: None
        return
    from rich.console import Console

    with Console(stderr=True).status(f"0 {what}") as status:
        yield lambda done: status.update(f"{done:,} {what}") if done % 16 == 0 else None
