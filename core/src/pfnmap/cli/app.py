"""The application: the commands, and what every one of them makes of an exception.

Commands are plugins (entry-point group ``pfnmap.command``), those of this package too.

Whatever goes wrong is one line on stderr and an exit code: 1 a clean "no", 2 bad usage or bad input, 3 a refusal. A
traceback is shown with ``--debug`` alone. As with any other tool it is 130 after Ctrl-C, and 141 where the reader of a
pipe has gone.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import current_thread, main_thread
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pfnmap.boundary import interrupt
from pfnmap.cli.commands import ClickError, Commands, plainly
from pfnmap.cli.options import Settings
from pfnmap.cli.stdout import Stdout
from pfnmap.cli.streams import forget
from pfnmap.cli.terminal import complain
from pfnmap.errors import PfnmapError

__all__ = ["app"]

_ANYWHERE = ("--debug", "--no-plugins")
"""Global options that may also stand behind the command."""
_ERRORS = (1, 2, 3)
"""Exit codes that an error may choose among."""
_CLOSED_PIPE = 128 + 13
"""What a shell makes of SIGPIPE."""


class _ClosedPipeError(Exception):
    """A BrokenPipeError, by a name of which typer does not make exit code 1."""


@contextmanager
def _closed_pipe_kept() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise _ClosedPipeError from error
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # what rich makes of one
            raise _ClosedPipeError from error
        raise


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have Ctrl-C told from what a plugin raises, where it does what Python makes of it."""
    told = signal.getsignal(signal.SIGINT) is signal.default_int_handler and current_thread() is main_thread()
    if told:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if told:
            signal.signal(signal.SIGINT, signal.default_int_handler)


class _Group(TyperGroup):
    """The commands, with what every one of them makes of an exception."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def get_params(self, ctx: Any) -> list[Any]:
        return plainly(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.commands = Commands(lambda: ctx.obj.registry, listed=True)  # type: ignore[assignment]
        super().format_help(ctx, formatter)

    def make_context(self, *arguments: Any, **extra: Any) -> Any:
        with _closed_pipe_kept():  # --help prints while arguments are parsed
            return super().make_context(*arguments, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _closed_pipe_kept():
            return super().invoke(ctx)

    def main(self, args: Sequence[str] | None = None, **extra: Any) -> Any:  # type: ignore[override]
        arguments = list(sys.argv[1:] if args is None else args)
        end = arguments.index("--") if "--" in arguments else len(arguments)
        moved = [item for item in arguments[:end] if item in _ANYWHERE]
        arguments = [*moved, *(item for item in arguments[:end] if item not in _ANYWHERE), *arguments[end:]]
        settings = Settings(no_plugins="--no-plugins" in moved)
        self.commands = Commands(lambda: settings.registry)  # type: ignore[assignment]
        extra.update(prog_name="pfnmap", standalone_mode=False, obj=settings)
        stdout = sys.stdout
        sys.stdout = Stdout(stdout)
        try:
            with _interruptible():
                status = super().main(arguments, **extra)
            sys.stdout.flush()
        except (BrokenPipeError, _ClosedPipeError):
            status = _CLOSED_PIPE
        except Exception as error:
            if "--debug" in moved:
                _show_traceback()
            status = _report(error)
        finally:
            sys.stdout = stdout
        try:
            stdout.flush()
        except (OSError, ValueError):  # ValueError: it is closed
            forget(stdout)
        sys.exit(status)


def _show_traceback() -> None:
    from pfnmap.report.text import printable

    with suppress(OSError):
        for line in traceback.format_exc().splitlines():
            print(printable(line), file=sys.stderr)


def _report(error: Exception) -> int:
    """Say in one line what went wrong, and return the exit code."""
    if isinstance(error, PfnmapError):
        complain(error)
        return error.exit_code if error.exit_code in _ERRORS else 2
    if isinstance(error, ClickError):
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "pfnmap"
        complain(f"{error.format_message().rstrip('.')} ({path} --help tells more)")  # type: ignore[attr-defined]
        return 2
    if isinstance(error, OSError):  # files say it in their own words, so it is an answer that cannot be written
        complain(f"{error.filename or 'standard output'}: {error.strerror or error}")
        return 2
    if isinstance(error, MemoryError):
        complain("out of memory")
        return 2
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    complain(f"internal error: {text}; --debug shows the traceback")
    return 2


app = typer.Typer(
    cls=_Group,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _global(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", "-V", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    no_plugins: Annotated[bool, typer.Option("--no-plugins", help="Use no plugin.")] = False,
) -> int:
    """At which page-table level will Linux map this PCI BAR, and why not at a larger one.

    Sizes are read as 8G, 8GiB, 0x200000 or 4096. PFNMAP_PLUGINS=name,name@distribution limits the plugins.
    """
    if version:
        from importlib.metadata import version as version_of

        print(f"pfnmap {version_of('pfnmap')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)
    return 0
