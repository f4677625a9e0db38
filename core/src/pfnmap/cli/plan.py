"""``pfnmap plan``: at which level BARs will be mapped, what it costs, and why not larger."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperCommand

from pfnmap.cli.options import JsonOption, KernelOptions, Settings, kernel_options, linked
from pfnmap.cli.terminal import heading, plain, print_json, show, warn
from pfnmap.errors import BadInput

if TYPE_CHECKING:
    from pfnmap.contract.option import Asked, PlanOption
    from pfnmap.plan import Request
    from pfnmap.plugins import Registry
    from pfnmap.spec import KernelSpec


__all__ = ["app", "command"]

_OPTIONS: Final = "pfnmap.plan options"
_VALUES: Final = "pfnmap.plan values"


def _option(name: str, metavar: str, text: str, panel: str) -> object:
    return typer.Option(name, metavar=metavar, help=text, rich_help_panel=panel, show_default=False)


class _PlanCommand(TyperCommand):
    """``plan`` with the options that plugins bring; which those are is known once it is known which may be used."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the command's own options and the plugins'."""
        return [*super().get_params(ctx), *_parameters(_brought(ctx))]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Say of an option whose plugin cannot be used which distribution brings it."""
        from pfnmap.plugins import why_unusable

        brought = {option.name for option in _brought(ctx)}
        for name, plugin in _offered().items():
            if name not in brought and any(arg.partition("=")[0] == f"--{name}" for arg in args):
                registry = _settings(ctx).registry
                raise BadInput(f"--{name}", why_unusable(registry, "driver", plugin) or f"plugin {plugin} lacks it")
        return super().parse_args(ctx, args)


def _settings(context: typer.Context) -> Settings:
    return context.obj or Settings()


def _brought(context: typer.Context) -> tuple[PlanOption, ...]:
    """The options that the plugins which can be used bring."""
    from pfnmap.errors import PluginError

    if _OPTIONS not in context.meta:
        registry = _settings(context).registry
        found: list[PlanOption] = []
        for name in registry.names("driver"):
            with suppress(PluginError):  # told where the kernel is linked
                found += registry.load("driver", name).plan_options
        context.meta[_OPTIONS] = tuple(found)
    options: tuple[PlanOption, ...] = context.meta[_OPTIONS]
    return options


def _parameters(options: Sequence[PlanOption]) -> list[Any]:
    """Options as the parser takes them; their values go to where `_asked` finds them."""

    def keeping(name: str) -> Callable[[typer.Context, Any], None]:
        def keep(context: typer.Context, value: Any) -> None:
            context.meta.setdefault(_VALUES, {})[name] = value

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


def _offered() -> dict[str, str]:
    """Options of the plugins of this project, and which plugin brings each."""
    from importlib import resources

    import tomli

    text = resources.files("pfnmap").joinpath("offers.toml").read_text("utf-8")
    offered: dict[str, str] = tomli.loads(text)["plan_option"]
    return offered


def _asked(context: typer.Context) -> Asked:
    """What the plugins' options ask for."""
    from pfnmap.contract.option import Asked

    asked, values = Asked(), context.meta.get(_VALUES, {})
    for option in _brought(context):
        if values.get(option.name):
            asked = option.ask(asked, values[option.name])
    return asked


@kernel_options()
def command(
    context: typer.Context,
    kernel: KernelOptions,
    scenario: Annotated[
        str | None, typer.Argument(metavar="SCENARIO.toml", help="Plan the mappings of a scenario file.")
    ] = None,
    bars: Annotated[
        list[str] | None,
        _option("--bar", "SIZE[@PHYS]", "A BAR: 8G@0x800000000, or 8G; repeatable.", "What is mapped"),
    ] = None,
    offset: Annotated[
        str | None, _option("--offset", "SIZE", "With one --bar: map it from here on.", "What is mapped")
    ] = None,
    length: Annotated[
        str | None, _option("--length", "SIZE", "With one --bar: map so much; else all the rest.", "What is mapped")
    ] = None,
    lspci: Annotated[
        str | None, _option("--lspci", "FILE", "Every BAR in the output of lspci -vv; - is stdin.", "What is mapped")
    ] = None,
    va: Annotated[str | None, _option("--va", "ADDR", "At this virtual address.", "Where")] = None,
    vmm: Annotated[
        list[str] | None,
        _option(
            "--vmm", "POLICY", "kernel (what mmap(NULL) gives), aligned, or a VMM; repeatable, else both.", "Where"
        ),
    ] = None,
    mmap_base: Annotated[
        str | None, _option("--mmap-base", "ADDR", "mmap(NULL) searches downwards from here.", "Where")
    ] = None,
    json: JsonOption = False,
) -> int:
    """Plan at which page-table level BARs will be mapped, what it costs, and why not larger.

    Without --va or --vmm both core policies are planned side by side.
    """
    from pfnmap.plan import plan
    from pfnmap.requests import at_guest_address, of_bars, placed
    from pfnmap.sizes import parse_address, parse_size
    from pfnmap.spec import KernelSpec

    kinds = [name for name, given in (("--bar", bars), ("--lspci", lspci), ("a scenario", scenario)) if given]
    if not kinds:
        raise BadInput("", "give --bar, --lspci or a scenario file")
    if len(kinds) > 1:
        raise BadInput("", f"{' and '.join(kinds)} exclude each other")
    if (offset is not None or length is not None) and len(bars or ()) != 1:
        raise BadInput("", "--offset and --length go with exactly one --bar")
    if va is not None and vmm:
        raise BadInput("", "--va and --vmm exclude each other")
    asked = _asked(context)
    base = KernelSpec()
    names: dict[str, str] = {}
    if bars:
        start = parse_size(offset, "--offset") if offset is not None else 0
        requests = of_bars(bars, start, parse_size(length, "--length") if length is not None else None)
    elif lspci is not None:
        requests, names = _of_lspci(lspci)
    else:
        requests, base = _of_scenario(scenario or "")
    requests = placed(requests, parse_address(va, "--va") if va is not None else None, vmm or ())
    if asked.gpa is not None:
        requests = at_guest_address(requests, asked.gpa)
    registry = _settings(context).registry
    _check_drivers(registry, requests)
    image = linked(kernel.over(base), registry)
    base_address = parse_address(mmap_base, "--mmap-base") if mmap_base else None
    planned = plan(
        image, requests, mmap_base=base_address, dma=asked.dma, hypervisor=asked.hypervisor, registry=registry
    )
    if json:
        print_json("plan", planned.as_json())
        return 0
    from pfnmap.report.plan_table import render

    heading(planned.kernel)
    show(*render(planned, names))
    return 0


def _check_drivers(registry: Registry, requests: Sequence[Request]) -> None:
    """Say of a driver that cannot be used which distribution brings it, before anything is linked without it."""
    from pfnmap.plugins import why_unusable

    registry.architectures()
    for name in dict.fromkeys(request.driver for request in requests):
        if why := why_unusable(registry, "driver", name):
            raise BadInput("", why)


def _of_lspci(path: str) -> tuple[list[Request], dict[str, str]]:
    """Return a request for each BAR, and what the devices are called."""
    from pfnmap.host.bounded import source_name
    from pfnmap.host.lspci import read_lspci
    from pfnmap.requests import of_devices, unplannable

    devices = read_lspci(path)
    for sentence in unplannable(devices):
        warn(sentence)
    return of_devices(devices, source_name(path)), {device.bdf: plain(device.name) for device in devices}


def _of_scenario(path: str) -> tuple[list[Request], KernelSpec]:
    from pfnmap.requests import of_scenario
    from pfnmap.scenario import read_scenario

    scenario = read_scenario(path)
    return of_scenario(scenario), scenario.kernel


app = typer.Typer(add_completion=False)
app.command("plan", cls=_PlanCommand)(command)
