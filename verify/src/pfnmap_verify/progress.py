"""How far a session is, in one line on a terminal: records done, boots, seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["session_progress"]


@contextmanager
def session_progress(total: int, kernel: str) -> Iterator[Callable[[int, int], None]]:
    """Show a line on stderr while it runs, where that is a terminal; yield what to call with (records done, boots)."""
    if not sys.stderr.isatty():
        yield lambda done, boots: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from pfnmap.report.text import printable

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[boots]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(printable(kernel), total=total, boots="")

        def tell(done: int, boots: int) -> None:
            progress.update(task, completed=done, boots=f"boot {boots}")

        yield tell
