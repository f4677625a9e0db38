"""Processes that work for this one, which alone decides what becomes of Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pfnmap.errors import BadInput

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["workers"]


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
                return pool.submit(function, *arguments)

        try:
            yield submit
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            mine = set(active_children()) - others
            for process in mine:
                process.terminate()
            for process in mine:
                process.join()
            if isinstance(error, BrokenProcessPool):
                what = "a worker died (out of memory?), and with it what it had to answer"
                raise BadInput("--jobs", what) from None
            raise


def _begin(begin: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches all processes of a terminal
    if begin is not None:
        begin()


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Have Ctrl-C wait, in this process, and in one that begins until it does not listen to it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
