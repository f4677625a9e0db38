"""Many machines in a pipe: lines in, answers out, in their order, in memory that does not grow with their number.

Who answers is a function of a chunk of lines, here or in other processes: a pool of this machine's, or a cluster's
workers. At any time only so many chunks are on their way as keep all workers busy.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from pfnmap.errors import BadInput
from pfnmap.host.bounded import MIB, opened
from pfnmap.workers import workers

__all__ = ["Answers", "Line", "Submit", "chunks", "in_order", "lines", "over_cluster", "over_processes"]

LINE = 16 * MIB
"""Bytes of a line."""
_SKIPPED = 64
"""How many times as much is passed over in search of a line's end."""
CHUNK = 16
"""Lines that are handed over together."""
_CONNECT = "10s"
"""How long a scheduler may take to answer."""
_AHEAD = 3
"""Chunks on their way for each worker."""

_T = TypeVar("_T")


class Line(NamedTuple):
    """A line: its number from 1 over all inputs, and its bytes; or why it is not one (`error`)."""

    number: int
    content: bytes
    error: str = ""


class Answers(NamedTuple):
    """The documents of some lines, one a line of JSON; how many they are, and how many of them only say why there is
    no answer."""

    text: bytes
    lines: int
    broken: int


class Future(Protocol):
    """What is on its way."""

    def result(self) -> Answers:
        """Wait for it."""


Submit: TypeAlias = Callable[[Sequence[Line]], Future]


def lines(files: Sequence[str], packed: Callable[[str], bytes]) -> Iterator[Line]:
    """Yield the lines of files of JSON lines ("-" is standard input); a tar file is one line, which `packed` makes of
    its path. Empty lines are no lines. Raises BadInput for a file that cannot be read.
    """
    number = 0
    for file in files:
        for content, error in _tar(file, packed) if _is_tar(file) else _lines_of(file):
            if content.strip() or error:
                number += 1
                yield Line(number, content, error)


def _is_tar(file: str) -> bool:
    name = os.path.basename(file)
    return name.endswith((".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.zst"))


def _tar(file: str, packed: Callable[[str], bytes]) -> Iterator[tuple[bytes, str]]:
    yield packed(file), ""


def _lines_of(file: str) -> Iterator[tuple[bytes, str]]:
    with opened(file) as stream:
        while line := stream.readline(LINE + 1):
            if len(line) <= LINE:
                yield line, ""
                continue
            for _ in range(_SKIPPED):
                if not line or line.endswith(b"\n"):
                    break
                line = stream.readline(LINE)
            else:  # such as /dev/zero, which has no end
                raise BadInput(file, f"a line of more than {_SKIPPED * LINE // MIB} MiB")
            yield b"", f"longer than {LINE // MIB} MiB, which is the most that is read"


def chunks(items: Iterable[_T], size: int = CHUNK) -> Iterator[list[_T]]:
    """Yield items together, `size` at a time."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def in_order(given: Iterable[Sequence[Line]], submit: Submit, workers: int) -> Iterator[Answers]:
    """Yield the answers to chunks in the order of the chunks, with so many on their way as keep workers busy."""
    waiting: deque[Future] = deque()
    for chunk in given:
        waiting.append(submit(chunk))
        if len(waiting) >= workers * _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def over_processes(jobs: int, function: Callable[..., Answers], job: Any) -> Iterator[Submit]:
    """Answer in `jobs` processes: ``function(job, chunk)``. Raises BadInput where one of them dies."""
    with workers(jobs) as submit:
        yield lambda chunk: submit(function, job, chunk)


@contextmanager
def over_cluster(address: str, function: Callable[..., Answers], job: Any) -> Iterator[tuple[Submit, int]]:
    """Answer on the workers of a dask.distributed cluster; yield with it how many there are. What a worker that dies
    had to answer is answered by another.

    Raises BadInput without dask.distributed, and for a scheduler that does not answer.
    """
    try:
        from distributed import Client
    except ImportError:
        raise BadInput("--dask", "dask.distributed is not installed: pip install 'pfnmap[dask]'") from None
    try:
        client = Client(address, timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        said = " ".join(str(error).split())[:160]
        raise BadInput(f"--dask {address}", f"no scheduler answers: {said}") from None
    with client:
        workers = max(len(client.scheduler_info(n_workers=-1)["workers"]), 1)
        yield (lambda chunk: client.submit(function, job, list(chunk), pure=False)), workers
