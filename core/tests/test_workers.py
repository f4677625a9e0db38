"""Processes that work for another: what becomes of them when it is interrupted, or when one of them dies."""

import os
import signal
import time
from multiprocessing import active_children

import pytest

from pfnmap.errors import BadInput
from pfnmap.workers import workers


def test_what_is_submitted_is_done_elsewhere():
    with workers(2) as submit:
        assert submit(os.getpid).result() != os.getpid()
        assert submit(signal.getsignal, signal.SIGINT).result() is signal.SIG_IGN
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_interrupted_it_gives_up_what_is_still_done_and_leaves_nobody_behind():
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), workers(2) as submit:  # noqa: PT012
        for _ in range(8):
            submit(time.sleep, 120)
        raise KeyboardInterrupt
    assert time.monotonic() - started < 60
    assert active_children() == []


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.1, 0.2])
def test_answers_that_are_being_written_are_written_or_not_begun(moment):
    with pytest.raises(KeyboardInterrupt), workers(2) as submit:  # noqa: PT012
        for _ in range(64):
            submit(bytes, 8 << 20)
        time.sleep(moment)
        raise KeyboardInterrupt
    assert active_children() == []


def test_an_idle_one_ends():
    with pytest.raises(KeyboardInterrupt), workers(2) as submit:  # noqa: PT012
        assert submit(len, "ab").result() == 2
        raise KeyboardInterrupt
    assert active_children() == []


def test_one_that_dies_is_said():
    with pytest.raises(BadInput, match="a worker died"), workers(2) as submit:
        submit(os._exit, 9).result()
