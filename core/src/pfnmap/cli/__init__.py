"""The command line: one file a command. A command parses, calls the library and renders what it gave."""

from __future__ import annotations

import gc

__all__ = ["main"]

_GARBAGE = 50_000
"""New objects after which Python looks for garbage. What a command imports and links is none, and looking through it
after each 700 takes a tenth of the time of a short one."""


def main() -> None:
    """Run the command line."""
    gc.set_threshold(_GARBAGE, *gc.get_threshold()[1:])
    from pfnmap.cli.app import app  # with fewer looks for garbage
    from pfnmap.cli.streams import prepare

    prepare()
    try:
        app()
    finally:
        gc.freeze()  # Python looks for garbage as it ends, which takes a tenth of the time of a short command again
