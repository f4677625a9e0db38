"""``pfnmap plan``: at which level BARs will be mapped, what it costs, and why not larger."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pfnmap.cli.desk import DESK, BatchOption, DaskOption, Desk, JobsOption, run_batch
from pfnmap.cli.once import OnceCommand
from pfnmap.cli.options import JsonOption, KernelOptions, Settings, kernel_options
from pfnmap.cli.terminal import heading, print_json, show, styled
from pfnmap.contract.defaults import DEFAULT_DRIVER
from pfnmap.errors import BadInput

if TYPE_CHECKING:
    from pfnmap.contract.module import Driver
    from pfnmap.contract.option import Asked, PlanOption
    from pfnmap.host.input import Input
    from pfnmap.inputs import Wanted
    from pfnmap.kernel import Kernel
    from pfnmap.plan import Advice, Plan, Request
    from pfnmap.plugins import Registry
    from pfnmap.scenario import Scenario
    from pfnmap.spec import KernelSpec


__all__ = ["app", "command"]

_OPTIONS: Final = "pfnmap.plan options"
_VALUES: Final = "pfnmap.plan values"
_TIME: Final = "Time"


def _option(name: str, metavar: str, text: str, panel: str) -> object:
    return typer.Option(name, metavar=metavar, help=text, rich_help_panel=panel, show_default=False)


class _PlanCommand(OnceCommand):
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
                registry = _settings(ctx).registry
                raise BadInput(word, why_unusable(registry, "driver", plugin) or f"plugin {plugin} lacks it")
        return super().parse_args(ctx, args)


def _settings(context: typer.Context) -> Settings:
    return context.obj or Settings()


def _brought(context: typer.Context) -> tuple[tuple[str, PlanOption], ...]:
    """The options that the plugins which can be used bring, with whose they are."""
    from pfnmap.errors import PluginError

    if _OPTIONS not in context.meta:
        registry = _settings(context).registry
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


def _asked(context: typer.Context) -> Asked:
    """What the plugins' options ask for."""
    from pfnmap.contract.option import Asked
    from pfnmap.plugins import calling

    asked, values = Asked(), context.meta.get(_VALUES, {})
    for plugin, option in _brought(context):
        if values.get(option.name):
            with calling(plugin, f"--{option.name}") as gave:
                asked = gave(option.ask(asked, values[option.name]), Asked)
    return asked


@kernel_options()
def command(
    context: typer.Context,
    kernel: KernelOptions,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INPUT]...",
            help="lspci, lshw, hwinfo, dmesg, sysfs resource, iomem, /proc/PID/maps, pmap, a scenario; - is stdin.",
            show_default=False,
        ),
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
    driver: Annotated[
        str | None,
        _option("--driver", "NAME", f"With --bar: who maps it; else {DEFAULT_DRIVER}.", "What is mapped"),
    ] = None,
    lspci: Annotated[
        list[str] | None, _option("--lspci", "FILE", "The same as an INPUT; repeatable.", "What is mapped")
    ] = None,
    root: Annotated[
        str | None,
        _option("--root", "DIR|TAR", "The devices of a captured host, on its kernel (pfnmap host).", "What is mapped"),
    ] = None,
    slot: Annotated[
        list[str] | None,
        typer.Option(
            "-s",
            metavar="BDF",
            help="Only this device of the inputs (as lspci -s); repeatable.",
            rich_help_panel="What is mapped",
            show_default=False,
        ),
    ] = None,
    device_id: Annotated[
        list[str] | None,
        typer.Option(
            "-d",
            metavar="VENDOR:DEVICE",
            help="Only such devices of the inputs (as lspci -d); repeatable.",
            rich_help_panel="What is mapped",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        str | None,
        _option(
            "--against",
            "KEY=VALUE,...",
            "A second side: release=, config=, thp=, vmm=, arch=.",
            "What would be otherwise",
        ),
    ] = None,
    advise: Annotated[
        bool,
        typer.Option(
            "--advise",
            help="What would map more with larger leaves, or cut the walks of a DMA map.",
            rich_help_panel="What would be otherwise",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="A line a device, and a total.")] = False,
    over: Annotated[
        str | None,
        _option("--sweep", "release|va|thp", "Ask of each release, alignment or setting.", "What would be otherwise"),
    ] = None,
    output: Annotated[
        str | None, _option("-o", "FILE.svg", "With --sweep: draw it.", "What would be otherwise")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write onto a file that exists.")] = False,
    maps: Annotated[bool, typer.Option("--map", help="Draw each BAR: which stretch is mapped at which level.")] = False,
    va: Annotated[str | None, _option("--va", "ADDR", "At this virtual address.", "Where")] = None,
    vmm: Annotated[
        list[str] | None,
        _option(
            "--vmm", "POLICY", "kernel (what mmap(NULL) gives), aligned, or a VMM; repeatable, else both.", "Where"
        ),
    ] = None,
    vmm_opt: Annotated[
        list[str] | None, _option("--vmm-opt", "OPT", "An option of the VMM: NAME or NAME=VALUE; repeatable.", "Where")
    ] = None,
    assume_newest: Annotated[
        bool,
        typer.Option(
            "--vmm-assume-newest",
            help="Take a version that is newer than what is known for the newest known.",
            rich_help_panel="Where",
        ),
    ] = False,
    msix: Annotated[
        list[str] | None,
        _option("--msix", "BAR:TABLE:VECTORS[:PBA]", "Offsets of MSI-X table and PBA; repeatable.", "Where"),
    ] = None,
    sparse: Annotated[
        list[str] | None,
        _option("--sparse", "BAR:OFFSET:LENGTH", "The region can be mapped only here; repeatable.", "Where"),
    ] = None,
    no_msix_mappable: Annotated[
        bool,
        typer.Option(
            "--no-msix-mappable",
            help="The region does not say that the MSI-X table may be mapped (before 4.16).",
            rich_help_panel="Where",
        ),
    ] = False,
    mmap_base: Annotated[
        str | None, _option("--mmap-base", "ADDR", "mmap(NULL) searches downwards from here.", "Where")
    ] = None,
    timed: Annotated[
        bool, typer.Option("--time", help="Seconds, estimated from published measurements.", rich_help_panel=_TIME)
    ] = False,
    toggles: Annotated[
        str | None, _option("--toggles", "N", "Decode toggles of a boot; else as published.", _TIME)
    ] = None,
    calibrate: Annotated[
        str | None, _option("--calibrate", "FILE", "TOML: ns_per_walk, ns_per_fault, ns_per_table_page.", _TIME)
    ] = None,
    batch: BatchOption = False,
    jobs: JobsOption = None,
    dask: DaskOption = None,
    json: JsonOption = False,
) -> int:
    """Plan at which page-table level BARs will be mapped, what it costs, and why not larger.

    Without --va or --vmm both core policies are planned side by side.
    """
    from pfnmap.against import parse_against
    from pfnmap.plan import POLICIES, difference
    from pfnmap.plan.placement import vmm_class
    from pfnmap.requests import of_bars
    from pfnmap.sizes import parse_address, parse_size
    from pfnmap.spec import KernelSpec

    if batch or jobs is not None or dask is not None:
        return run_batch(context, "plan", inputs or (), {_VALUES: context.meta.get(_VALUES, {})})
    files = [*(inputs or ()), *(lspci or ())]
    if root is not None and (bars or files):
        raise BadInput("--root", "excludes --bar and files")
    if not (bars or files or root):
        raise BadInput("", "give --bar, or files: lspci -vv > FILE, a scenario, ...")
    if bars and files:
        raise BadInput("", f"--bar and {files[0]} exclude each other")
    if (slot or device_id) and not (files or root):
        raise BadInput("", "-s and -d choose among the devices of a file")
    if driver is not None and not bars:
        raise BadInput("--driver", "it goes with --bar: inputs and scenarios say who drives their devices")
    if (offset is not None or length is not None) and len(bars or ()) != 1:
        raise BadInput("", "--offset and --length go with exactly one --bar")
    if va is not None and vmm:
        raise BadInput("", "--va and --vmm exclude each other")
    if not (programs := [name for name in vmm or () if name not in POLICIES]):
        regions = {"--vmm-opt": vmm_opt, "--vmm-assume-newest": assume_newest}
        regions |= {"--msix": msix, "--sparse": sparse, "--no-msix-mappable": no_msix_mappable}
        for option in (option for option, given in regions.items() if given):
            raise BadInput("", f"{option} goes with --vmm and a VMM's name")
    if programs and (offset is not None or length is not None):
        raise BadInput("", f"--offset and --length: {programs[0]} says itself what of a BAR it maps")
    registry = _settings(context).registry
    read = _read(files, registry) if files else []
    base, requests, scenario = KernelSpec(), [], None
    if root is not None:
        base, devices = _of_host(root, registry)
        read = [devices]
    scenarios = [file for file, one in zip(files, read, strict=False) if one.kind == "scenario"]
    if scenarios and len(files) > 1:
        raise BadInput(scenarios[0], "a scenario is planned by itself, and there are other files")
    if bars:
        start = parse_size(offset, "--offset") if offset is not None else 0
        size = parse_size(length, "--length") if length is not None else None
        requests = [replace(one, driver=driver or one.driver) for one in of_bars(bars, start, size)]
    elif scenarios:
        from pfnmap.scenario import read_scenario

        scenario = read_scenario(scenarios[0])
        base = scenario.kernel
    for name in vmm or ():
        vmm_class(name, registry)
    if scenario is not None:
        _check_drivers(registry, [device.driver for device in scenario.devices])
    _check_drivers(registry, [request.driver for request in requests])
    desk: Desk = context.meta.get(DESK) or Desk(registry)
    question = _Question(
        desk,
        registry,
        read,
        scenario,
        requests,
        slot or (),
        device_id or (),
        parse_address(va, "--va") if va is not None else None,
        vmm or (),
        parse_address(mmap_base, "--mmap-base") if mmap_base else None,
        _asked(context),
        vmm_opt or (),
        assume_newest,
        msix or (),
        sparse or (),
        not no_msix_mappable,
    )
    spec = kernel.over(base)
    if over is not None:
        return _sweep(question, spec, over, output, force, json)
    if output is not None:
        raise BadInput("-o", "goes with --sweep")
    this = _side(question, spec)
    other, found, document = None, None, this.as_json()
    if against is not None:
        said = parse_against(against)
        there = question
        if said.vmm:
            options = () if said.vmm in POLICIES else question.vmm_options
            there = replace(question, va=None, vmm=(said.vmm,), vmm_options=options)
        other = _side(there, said.over(spec))
        found = difference(this.plan, other.plan, said.vmm)
        document |= {"against": other.as_json(), "difference": found.as_json()}
    advice = _advice(question, this) if advise else None
    if advice is not None:
        document["advice"] = [one.as_json() for one in advice]
    times = None
    if timed:
        from pfnmap.plan.time import times_of

        times = times_of(this.plan.mappings, this.image, calibrate, toggles)
        document |= {"time": times.as_json()}
    elif calibrate is not None or toggles is not None:
        raise BadInput("--calibrate" if calibrate is not None else "--toggles", "goes with --time")
    if desk.take is not None:
        desk.take(document)
        return 0
    if json:
        print_json("plan", document)
        return 0
    _show_side(this, quiet, legend=other is None)
    if other is not None and found is not None:
        from pfnmap.report.difference import render_difference

        show("", styled(f"Against {against}", "bold"))
        _show_side(other, quiet)
        show(*render_difference(found, str(against)))
    if maps:
        _show_maps({"": document} if other is None else {"this side": document, str(against): document["against"]})
    if times is not None:
        from pfnmap.report.time import render_times

        show(*render_times(times))
    if advice is not None:
        from pfnmap.report.advice import render_advice

        show(*render_advice(advice))
    return 0


@dataclass(frozen=True)
class _Question:
    """What is asked of each side: the command line but what it says of the kernel."""

    desk: Desk
    registry: Registry
    read: Sequence[Input]
    scenario: Scenario | None
    requests: Sequence[Request]
    slots: Sequence[str]
    ids: Sequence[str]
    va: int | None
    vmm: Sequence[str]
    mmap_base: int | None
    asked: Asked
    vmm_options: Sequence[str]
    newest_vmm: bool
    msix: Sequence[str]
    sparse: Sequence[str]
    msix_mappable: bool


@dataclass(frozen=True)
class _Side:
    """A kernel, what is planned on it, and the answer; `wanted`: what of that inputs ask for."""

    image: Kernel
    requests: Sequence[Request]
    wanted: Wanted | None
    plan: Plan

    def as_json(self) -> dict[str, Any]:
        """Return the document."""
        skipped = [{"device": one.device, "reason": one.reason} for one in self.wanted.skipped] if self.wanted else []
        return {**self.plan.as_json(), "skipped": skipped}


def _side(question: _Question, spec: KernelSpec) -> _Side:
    """Link a kernel, and plan on it what is asked; what is not as it was said is warned of."""
    from pfnmap.plan import plan
    from pfnmap.requests import at_guest_address, described, of_scenario, placed

    said: list[str] = []
    image = question.desk.link(spec, said.append)
    requests, wanted = question.requests, None
    if question.scenario is not None:
        requests = of_scenario(question.scenario, image)
    elif not requests:
        wanted = _of_inputs(question, image)
        requests = wanted.requests
    for text in (*_not_built(image, requests), *said, *(_left_out(wanted) if wanted else ())):
        question.desk.warn(text)
    requests = described(requests, question.msix, question.sparse, question.msix_mappable)
    requests = placed(requests, question.va, question.vmm)
    if question.asked.gpa is not None:
        requests = at_guest_address(requests, question.asked.gpa)
    return _Side(image, requests, wanted, plan(image, requests, **_how(question)))


def _how(question: _Question) -> dict[str, Any]:
    asked = question.asked
    return {
        "mmap_base": question.mmap_base,
        "dma": asked.dma,
        "hypervisor": asked.hypervisor,
        "registry": question.registry,
        "vmm_options": question.vmm_options,
        "newest_vmm": question.newest_vmm,
    }


def _advice(question: _Question, side: _Side) -> list[Advice]:
    from pfnmap.plan import advise

    return advise(side.image, side.requests, **_how(question))


def _show_side(side: _Side, quiet: bool, *, legend: bool = True) -> None:
    from pfnmap.report.plan_fold import folded, summary
    from pfnmap.report.plan_table import render

    heading(side.plan.kernel)
    names = side.wanted.names if side.wanted else {}
    show(*(summary(side.plan, names) if quiet else render(*folded(side.plan, names), legend=legend)))


def _sweep(question: _Question, spec: KernelSpec, over: str, output: str | None, force: bool, json: bool) -> int:
    """Ask the question of every point of a sweep; show the costs, and draw them."""
    from pathlib import Path

    from pfnmap.release import facts
    from pfnmap.report.plot import render_sweep, sweep_svg
    from pfnmap.sweep import kind_of, sweep

    if output is not None and Path(output).exists() and not force:
        raise BadInput(output, "exists; --force writes onto it")

    def ask(spec: KernelSpec, requests: Sequence[Request] | None) -> tuple[Sequence[Request], Plan]:
        asked = question if requests is None else replace(question, requests=requests, va=None, vmm=())
        side = _side(asked, spec)
        return side.requests, side.plan

    kind = kind_of(over)
    points = sweep(kind, spec, facts(question.registry), ask)
    if output is not None:
        bars = len({(r.device, r.bar) for r in ask(spec, None)[0]})
        title = f"{bars} BARs" if bars > 1 else "one BAR"
        try:
            Path(output).write_text(sweep_svg(kind, f"{title}, over {kind}", points), encoding="utf-8")
        except OSError as error:
            raise BadInput(output, f"cannot be written: {error.strerror}") from None
    if json:
        kernel = ask(spec, None)[1].kernel
        print_json("plan", {"kernel": dict(kernel), "sweep": {"over": kind, "points": [p.as_json() for p in points]}})
    else:
        show(render_sweep(kind, points))
    return 0


def _show_maps(sides: Mapping[str, Mapping[str, Any]]) -> None:
    from pfnmap.report.bar_map import bar_maps, compared, render

    show(*render(*compared([(label, bar_maps(side["mappings"])) for label, side in sides.items()])))


def _read(files: Sequence[str], registry: Registry) -> list[Input]:
    """Read files of the kinds that the core and the drivers know."""
    from pfnmap.host.input import KINDS, read_input
    from pfnmap.inputs import kinds_of

    kinds = {**KINDS, **kinds_of(_drivers(registry))}
    return [read_input(file, kinds) for file in files]


def _of_inputs(question: _Question, image: Kernel) -> Wanted:
    """Return what inputs ask for, less what a driver does not say how it maps."""
    from pfnmap.contract.defaults import DEFAULT_DRIVER
    from pfnmap.contract.module import Driver
    from pfnmap.contract.plan import by_device
    from pfnmap.errors import Refused
    from pfnmap.host.pci import Skipped
    from pfnmap.inputs import Selection, of_inputs
    from pfnmap.plan.ask import region_rules

    drivers = {name: type(driver) for name, driver in image.drivers.items() if isinstance(driver, Driver)}
    if not drivers:  # so that no mapping is anybody's
        _check_drivers(question.registry, [DEFAULT_DRIVER])
    only = Selection(tuple(question.slots), tuple(question.ids))
    wanted = of_inputs(question.read, drivers, image.has, only)
    _check_drivers(question.registry, [request.driver for request in wanted.requests])
    refused: list[Refused] = []
    asked, wanted.requests = wanted.requests, []
    beside = by_device(asked)
    for request in asked:
        try:
            region_rules(image, request, beside[request.device], question.registry)
            wanted.requests.append(request)
        except Refused as error:
            refused.append(error)
            wanted.skipped.append(Skipped(request.device, str(error)))
    if not wanted.requests:
        raise refused[0]
    return wanted


def _left_out(wanted: Wanted) -> list[str]:
    """What of inputs is left out, and what was taken."""
    return [f"{one.device}: {one.reason}" if one.device else f"not used: {one.reason}" for one in wanted.skipped] + [
        *wanted.notes
    ]


def _not_built(image: Kernel, requests: Sequence[Request]) -> list[str]:
    """Which drivers the configuration does not build."""
    found = []
    for name in dict.fromkeys(request.driver for request in requests):
        symbol = getattr(image.drivers[name], "config_symbol", "")
        if image.config.value(symbol) == "n":
            found.append(
                f"this kernel has no {name}: {symbol} is not set in {image.config.source or 'its configuration'}"
            )
    return found


def _drivers(registry: Registry) -> list[type[Driver]]:
    """The classes of the drivers that can be used."""
    from pfnmap.contract.module import Driver
    from pfnmap.errors import PluginError

    found = []
    for name in registry.names("driver"):
        with suppress(PluginError):  # told where the kernel is linked
            loaded = registry.load("driver", name)
            if issubclass(loaded, Driver):
                found.append(loaded)
    return found


def _check_drivers(registry: Registry, names: Sequence[str]) -> None:
    """Say of a driver that cannot be used which distribution brings it, before anything is linked without it."""
    from pfnmap.plugins import why_unusable

    registry.architectures()
    for name in dict.fromkeys(names):
        if why := why_unusable(registry, "driver", name):
            raise BadInput("", why)


def _of_host(root: str, registry: Registry) -> tuple[KernelSpec, Input]:
    """Return what a captured host says of its kernel, and its devices: those that a driver of the plugins' is bound to,
    or all where there is none."""
    from pfnmap.host.input import Input
    from pfnmap.host.machine import read_host
    from pfnmap.host.tree import open_tree
    from pfnmap.survey import spec_of

    host = read_host(open_tree(root))
    names = {name for driver in _drivers(registry) for name in driver.kernel_names}
    devices = [function.device for function in host.functions]
    bound = [device for device in devices if device.driver in names]
    return spec_of(host, registry, []), Input(root, "host", tuple(bound or devices), (), host.skipped)


app = typer.Typer(add_completion=False)
app.command("plan", cls=_PlanCommand)(command)
