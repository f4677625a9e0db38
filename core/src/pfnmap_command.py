"""The command ``pfnmap`` as it is installed: Ctrl-C ends it from its first moment on without a word of Python's."""

import os
import signal
import sys

__all__ = ["main"]

_INTERRUPTED = 130


def main() -> None:
    """Import the command line and run it. What is interrupted while it is imported, or after all is done, has nothing
    to tell."""
    listens = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if listens:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(_INTERRUPTED))
    from pfnmap.cli import main as run

    try:
        if listens:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    finally:
        if listens:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
