"""The options of ``plan`` that plugins bring, and what they ask for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pfnmap.cli.once import OnceCommand
from pfnmap.cli.options import Settings
from pfnmap.errors import BadInput

if TYPE_CHECKING:
    from pfnmap.contract.option import Asked, PlanOption

__all__ = ["VALUES", "PlanCommand", "asked_by", "settings_of"]

_OPTIONS: Final = "pfnmap.plan options"
VALUES: Final = "pfnmap.plan values"
"""Where the context's `meta` has the values of these options."""


class PlanCommand(OnceCommand):
    """``plan`` with the options that plugins bring; which those are is known once it is known which may be used."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the command's own options and the plugins'."""
        return [*super().get_params(ctx), *_parameters([option for _, option in _brought(ctx)])]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Say of an option whose plugin cannot be used which distribution brings it."""
        from pfnmap.offers import plan_options
        from pfnmap.plugins import why_unusable

        known = {word for parameter in self.get_params(ctx) for word in parameter.opts}
        for word in (arg.partition("=")[0] for arg in args if arg.startswith("--")):
            if word not in known and (plugin := plan_options().get(word.removeprefix("--"))):
                registry = settings_of(ctx).registry
                raise BadInput(word, why_unusable(registry, "driver", plugin) or f"plugin {plugin} lacks it")
        return super().parse_args(ctx, args)


def settings_of(context: typer.Context) -> Settings:
    return context.obj or Settings()


def _brought(context: typer.Context) -> tuple[tuple[str, PlanOption], ...]:
    """The options that the plugins which can be used bring, with whose they are."""
    from pfnmap.errors import PluginError

    if _OPTIONS not in context.meta:
        registry = settings_of(context).registry
        found: list[tuple[str, PlanOption]] = []
        for name in registry.names("driver"):
            with suppress(PluginError):  # told where the kernel is linked
                found += [(name, option) for option in registry.load("driver", name).plan_options]
        context.meta[_OPTIONS] = tuple(found)
    options: tuple[tuple[str, PlanOption], ...] = context.meta[_OPTIONS]
    return options


def _parameters(options: Sequence[PlanOption]) -> list[Any]:
    """Options as the parser takes them; their values go to where `_asked` finds them."""

    def keeping(name: str) -> Callable[[typer.Context, Any], None]:
        def keep(context: typer.Context, value: Any) -> None:
            context.meta.setdefault(VALUES, {})[name] = value

        return keep

    def none(**_: object) -> None:
        """Take what the options give."""

    none.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                option.name.replace("-", "_"),
                inspect.Parameter.KEYWORD_ONLY,
                default=None if option.metavar else False,
                annotation=Annotated[
                    str | None if option.metavar else bool,
                    typer.Option(
                        f"--{option.name}",
                        metavar=option.metavar or None,
                        help=option.help,
                        rich_help_panel=option.panel,
                        show_default=False,
                        expose_value=False,
                        callback=keeping(option.name),
                    ),
                ],
            )
            for option in options
        ]
    )
    app = typer.Typer(add_completion=False)
    app.command()(none)
    return list(typer.main.get_command(app).params)


def asked_by(context: typer.Context) -> Asked:
    """What the plugins' options ask for."""
    from pfnmap.contract.option import Asked
    from pfnmap.plugins import calling

    asked, values = Asked(), context.meta.get(VALUES, {})
    for plugin, option in _brought(context):
        if values.get(option.name):
            with calling(plugin, f"--{option.name}") as gave:
                asked = gave(option.ask(asked, values[option.name]), Asked)
    return asked
