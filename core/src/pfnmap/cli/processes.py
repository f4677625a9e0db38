"""``--jobs N``: a function of each of some files, in processes, its results in the files' order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, TypeVar

import typer

from pfnmap.cli.terminal import beside_others, progress_bar
from pfnmap.errors import PfnmapError
from pfnmap.workers import workers

__all__ = ["JobsOption", "in_processes"]

T = TypeVar("T")

JobsOption = Annotated[
    int, typer.Option("--jobs", "-j", metavar="N", min=1, help="In so many processes; a limit is each file's then.")
]


def in_processes(jobs: int, function: Callable[..., T], files: Sequence[str], *arguments: Any) -> Iterator[T]:
    """Yield ``function(file, *arguments)`` of each file, all of which other processes can be given. Raises what is
    wrong with the first file of which something is; BadInput where one of them dies."""
    with (
        workers(min(jobs, len(files)), beside_others) as submit,
        progress_bar(len(files), f"{len(files)} files") as progress,
    ):
        waiting = [submit(_answered, function, file, *arguments) for file in files]
        for number, future in enumerate(waiting, 1):
            result = future.result()
            if isinstance(result, PfnmapError):
                raise result
            yield result
            progress(number)


def _answered(function: Callable[..., T], file: str, *arguments: Any) -> T | PfnmapError:
    """Call a function in a process of its own; an error is returned in a form that reaches another process."""
    try:
        return function(file, *arguments)
    except PfnmapError as error:
        told = PfnmapError(str(error))
        told.exit_code = error.exit_code
        return told
