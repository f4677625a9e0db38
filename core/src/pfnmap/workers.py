"""Processes that work for this one, which alone decides what becomes of Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pfnmap.boundary import Interrupted
from pfnmap.errors import BadInput

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["workers"]

_SECONDS = 5
"""In which a process that is asked to end writes what it has begun to answer."""


@contextmanager
def workers(jobs: int, begin: Callable[[], None] | None = None) -> Iterator[Callable[..., Future[Any]]]:
    """Have `jobs` processes; yield what submits a call to them. `begin` is called in each at first. Where the block is
    left by an exception what they still do is given up.

    Raises BadInput where one of them dies.
    """
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import active_children

    others = set(active_children())
    with ProcessPoolExecutor(jobs, initializer=_begin, initargs=(begin,)) as pool:

        def submit(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
            with _without_ctrl_c():  # a process may be started here
                return pool.submit(_work, function, *arguments)

        try:
            yield submit
        except BaseException as error:
            for process in set(active_children()) - others:
                process.terminate()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                what = "a worker died (out of memory?), and with it what it had to answer"
                raise BadInput("--jobs", what) from None
            raise


class _State:
    """Of a process that works for another."""

    working = ended = False


def _begin(begin: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches all processes of a terminal
    signal.signal(signal.SIGTERM, _end)
    if begin is not None:
        begin()


def _end(number: int, frame: object) -> None:
    """Give up what is worked on. An answer is written to its end: who reads half of one waits for ever."""
    _State.ended = True
    if _State.working:
        raise Interrupted
    signal.alarm(_SECONDS)


def _work(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        _State.working = True
        if _State.ended:
            raise Interrupted
        return function(*arguments)
    finally:
        _State.working = False


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Have Ctrl-C wait, in this process, and in one that begins until it does not listen to it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
