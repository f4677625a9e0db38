"""The commands that are installed: found through entry points, imported when they are called or their help is shown."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import typer
from typer.core import TyperCommand
from typer.main import get_command

from pfnmap.boundary import blamed, may_pass, said
from pfnmap.cli.examples import epilog
from pfnmap.cli.once import OnceCommand
from pfnmap.cli.stdout import keep_apart
from pfnmap.errors import NotInstalled, PfnmapError, PluginError, Unknown

if TYPE_CHECKING:
    from pfnmap.plugins import Registry

__all__ = ["ClickError", "Commands", "command_of", "plainly"]

ClickError: type[Exception] = typer.BadParameter.__mro__[2]
"""The base of what typer raises for bad usage; it has no public name there."""


class Commands(Mapping[str, Any]):
    """The commands by name. Iterating gives the names and imports nothing; a disabled one is left out, but there.

    A command that cannot be had (broken, disabled, claimed by two distributions) is one that says so when it is called.
    `listed`: what they give is to be shown in a list, not called.
    """

    def __init__(self, registry: Callable[[], Registry], *, listed: bool = False) -> None:
        self._registry = registry
        self._get = _listed if listed else command_of

    def __getitem__(self, name: str) -> Any:
        registry = self._registry()
        try:
            return self._get(registry, name)
        except (NotInstalled, PluginError) as error:
            return _failing(name, error)
        except Unknown:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(p.name for p in self._registry().plugins("command") if p.status != "disabled"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def command_of(registry: Registry, name: str) -> Any:
    """Return the command of that name as typer has it. Raises Unknown, and PluginError for one that cannot be had."""
    command = _command(name, registry.load("command", name))
    owns = (p.of_core for p in registry.plugins("command") if p.name == name and p.status == "ok")
    command.invoke = _own(command.invoke, registry) if any(owns) else _brought(command.invoke, name)
    return command


def _listed(registry: Registry, name: str) -> Any:
    """Return what a list of commands shows of one, whose short help is one line, which rich wraps."""
    listed = _named(registry, name)
    listed.short_help = listed.short_help or " ".join((listed.help or "").partition("\n\n")[0].split())
    return listed


def _named(registry: Registry, name: str) -> Any:
    """Return a command, one of the core's own with its name and its help alone."""
    plugin = next((p for p in registry.plugins("command") if p.name == name and p.status == "ok"), None)
    if plugin and plugin.of_core:
        loaded = registry.load("command", name)
        if not isinstance(loaded, typer.Typer):
            return TyperCommand(name, help=inspect.getdoc(loaded))
    return command_of(registry, name)


def _command(name: str, loaded: Any) -> Any:
    """Make a command of a function or a Typer application. Raises PluginError for what typer makes none of."""
    app = loaded
    if not isinstance(app, typer.Typer):
        app = typer.Typer(add_completion=False)
        app.command(name, cls=OnceCommand)(loaded)
    try:
        command = get_command(app)
    except BaseException as error:
        if may_pass(error):
            raise
        raise PluginError(name, f"typer makes no command of it: {said(error)}") from error
    command.name = name
    command.params = [p for p in command.params if not {"--install-completion", "--show-completion"} & set(p.opts)]
    return _plain(_exemplified(name, command))


def _exemplified(name: str, command: Any) -> Any:
    """End a command's help with its examples, which are read when it is shown."""
    format_help = command.format_help

    def formatted(context: typer.Context, formatter: Any) -> None:
        command.epilog = command.epilog or epilog(name)
        format_help(context, formatter)

    command.format_help = formatted
    return command


def _failing(name: str, error: PfnmapError) -> Any:
    """Return the command in the place of one that cannot be had."""

    def fail(context: typer.Context) -> None:
        raise error

    app = typer.Typer(add_completion=False)
    settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    app.command(name, help=str(error), context_settings=settings)(fail)
    return get_command(app)


_Invoke: TypeAlias = Callable[[typer.Context], Any]
_TYPERS = (ClickError, typer.Exit, typer.Abort)
"""What typer itself raises, and a command for it."""


def _own(invoke: _Invoke, registry: Registry) -> _Invoke:
    """Let a command of the core print nothing but its answer, and what comes out of a plugin be told with its name."""

    def invoked(context: typer.Context) -> Any:
        try:
            with keep_apart():
                return invoke(context)
        except BaseException as error:
            if may_pass(error) or isinstance(error, _TYPERS):
                raise
            packages = {plugin.package: plugin.name for plugin in registry.plugins() if not plugin.of_core}
            if (culprit := blamed(error, packages)) is None:
                raise
            raise culprit from error

    return invoked


def _brought(invoke: _Invoke, name: str) -> _Invoke:
    """Let what a plugin's command raises, but for what it may, be told with its name."""

    def invoked(context: typer.Context) -> Any:
        try:
            return invoke(context)
        except BaseException as error:
            if may_pass(error) or isinstance(error, (*_TYPERS, OSError, SystemExit)):
                raise
            raise PluginError(name, f"{said(error)}; --debug shows the traceback") from error

    return invoked


def _plain(command: Any) -> Any:
    """Have `plainly` go over the parameters of a command, and of those below it."""
    get_params = command.get_params
    command.get_params = lambda context: plainly(get_params(context))
    for below in getattr(command, "commands", {}).values():
        _plain(below)
    return command


def plainly(parameters: list[Any]) -> list[Any]:
    """Let flags show no type, take flags and text as they are, and read whole numbers without bounds: newer typers
    import pydantic to do so, which takes most of the time of a short command."""
    for parameter in parameters:
        flag = getattr(parameter, "is_flag", False)
        if flag:
            parameter.metavar = ""
        kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
        if flag or kind in (str, list[str]):
            parameter.get_runtime_param = _AsItIs
        elif kind is int and (info := parameter.type_descriptor.parameter_info).min is None and info.max is None:
            parameter.get_runtime_param = _Whole
    return parameters


class _AsItIs:
    """What typer turns a parameter's value into its type with, where it has that type."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        several = param.multiple or param.nargs == -1
        return () if value is None and several else value


class _Whole:
    """The same for a whole number."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            return value if value is None else int(value)
        except ValueError:
            raise typer.BadParameter(f"{value!r} is not a whole number", ctx=ctx, param=param) from None
