"""``pfnmap plan``: at which level BARs will be mapped, what it costs, and why not larger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final

import typer

from pfnmap.cli.desk import DESK, BatchOption, DaskOption, Desk, JobsOption, run_batch
from pfnmap.cli.options import JsonOption, KernelOptions, kernel_options
from pfnmap.cli.plan_options import VALUES, PlanCommand, asked_by, settings_of
from pfnmap.cli.plan_sides import Question, Side, advice_on, check_drivers, of_host, side_of
from pfnmap.cli.plan_sides import read as read_inputs
from pfnmap.cli.terminal import heading, print_json, show, styled
from pfnmap.contract.defaults import DEFAULT_DRIVER
from pfnmap.errors import BadInput

__all__ = ["app", "command"]

_WHAT: Final = "What is mapped"
_WHERE: Final = "Where"
_OTHERWISE: Final = "What would be otherwise"
_TIME: Final = "Time"


def _option(name: str, metavar: str | None, text: str, panel: str) -> object:
    """An option; a switch, where it has no metavar."""
    return typer.Option(name, metavar=metavar, help=text, rich_help_panel=panel, show_default=False)


@kernel_options()
def command(
    context: typer.Context,
    kernel: KernelOptions,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            help="lspci, lshw, hwinfo, dmesg, sysfs resource, iomem, /proc/PID/maps, pmap, a scenario; - is stdin.",
            show_default=False,
        ),
    ] = None,
    bars: Annotated[
        list[str] | None, _option("--bar", "SIZE[@PHYS]", "A BAR: 8G@0x800000000, or 8G; repeatable.", _WHAT)
    ] = None,
    offset: Annotated[str | None, _option("--offset", "SIZE", "With one --bar: map it from here on.", _WHAT)] = None,
    length: Annotated[
        str | None, _option("--length", "SIZE", "With one --bar: map so much; else all the rest.", _WHAT)
    ] = None,
    driver: Annotated[
        str | None, _option("--driver", "NAME", f"With --bar: who maps it; else {DEFAULT_DRIVER}.", _WHAT)
    ] = None,
    lspci: Annotated[list[str] | None, _option("--lspci", "FILE", "The same as an INPUT; repeatable.", _WHAT)] = None,
    root: Annotated[
        str | None, _option("--root", "DIR|TAR", "The devices of a captured host, on its kernel (pfnmap host).", _WHAT)
    ] = None,
    slot: Annotated[
        list[str] | None, _option("-s", "BDF", "Only this device of the inputs (as lspci -s); repeatable.", _WHAT)
    ] = None,
    device_id: Annotated[
        list[str] | None,
        _option("-d", "VENDOR:DEVICE", "Only such devices of the inputs (as lspci -d); repeatable.", _WHAT),
    ] = None,
    against: Annotated[
        str | None,
        _option(
            "--against",
            "KEY=VALUE,...",
            "A second side: release=, config=, thp=, vmm=, arch=.",
            _OTHERWISE,
        ),
    ] = None,
    advise: Annotated[
        bool,
        _option("--advise", None, "What would map more with larger leaves, or cut the walks of a DMA map.", _OTHERWISE),
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="A line a device, and a total.")] = False,
    over: Annotated[
        str | None, _option("--sweep", "release|va|thp", "Ask of each release, alignment or setting.", _OTHERWISE)
    ] = None,
    output: Annotated[str | None, _option("-o", "FILE.svg", "With --sweep: draw it.", _OTHERWISE)] = None,
    force: Annotated[bool, typer.Option("--force", help="Write onto a file that exists.")] = False,
    maps: Annotated[bool, typer.Option("--map", help="Draw each BAR: which stretch is mapped at which level.")] = False,
    va: Annotated[str | None, _option("--va", "ADDR", "At this virtual address.", _WHERE)] = None,
    vmm: Annotated[
        list[str] | None,
        _option("--vmm", "POLICY", "kernel (what mmap(NULL) gives), aligned, or a VMM; repeatable, else both.", _WHERE),
    ] = None,
    vmm_opt: Annotated[
        list[str] | None, _option("--vmm-opt", "OPT", "An option of the VMM: NAME or NAME=VALUE; repeatable.", _WHERE)
    ] = None,
    assume_newest: Annotated[
        bool,
        _option(
            "--vmm-assume-newest", None, "Take a version that is newer than what is known for the newest known.", _WHERE
        ),
    ] = False,
    msix: Annotated[
        list[str] | None,
        _option("--msix", "BAR:TABLE:VECTORS[:PBA]", "Offsets of MSI-X table and PBA; repeatable.", _WHERE),
    ] = None,
    sparse: Annotated[
        list[str] | None,
        _option("--sparse", "BAR:OFFSET:LENGTH", "The region can be mapped only here; repeatable.", _WHERE),
    ] = None,
    no_msix_mappable: Annotated[
        bool,
        _option(
            "--no-msix-mappable",
            None,
            "The region does not say that the MSI-X table may be mapped (before 4.16).",
            _WHERE,
        ),
    ] = False,
    mmap_base: Annotated[
        str | None, _option("--mmap-base", "ADDR", "mmap(NULL) searches downwards from here.", _WHERE)
    ] = None,
    timed: Annotated[bool, _option("--time", None, "Seconds, estimated from published measurements.", _TIME)] = False,
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
    from pfnmap.requests import driven, of_bars
    from pfnmap.sizes import parse_address, parse_size
    from pfnmap.spec import KernelSpec

    if batch or jobs is not None or dask is not None:
        return run_batch(context, "plan", inputs or (), {VALUES: context.meta.get(VALUES, {})})
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
    registry = settings_of(context).registry
    read = read_inputs(files, registry) if files else []
    base, requests, scenario = KernelSpec(), [], None
    if root is not None:
        base, devices = of_host(root, registry)
        read = [devices]
    scenarios = [file for file, one in zip(files, read, strict=False) if one.kind == "scenario"]
    if scenarios and len(files) > 1:
        raise BadInput(scenarios[0], "a scenario is planned by itself, and there are other files")
    if bars:
        start = parse_size(offset, "--offset") if offset is not None else 0
        size = parse_size(length, "--length") if length is not None else None
        requests = driven(of_bars(bars, start, size), driver)
    elif scenarios:
        from pfnmap.scenario import parse_scenario

        scenario = parse_scenario(read[0].text, read[0].source)
        base = scenario.kernel
    for name in vmm or ():
        vmm_class(name, registry)
    if scenario is not None:
        check_drivers(registry, [device.driver for device in scenario.devices])
    check_drivers(registry, [request.driver for request in requests])
    desk: Desk = context.meta.get(DESK) or Desk(registry)
    question = Question(
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
        asked_by(context),
        vmm_opt or (),
        assume_newest,
        msix or (),
        sparse or (),
        not no_msix_mappable,
    )
    spec = kernel.over(base)
    if over is not None:
        from pfnmap.cli.plan_sweep import sweep_of

        return sweep_of(question, spec, over, output, force, json)
    if output is not None:
        raise BadInput("-o", "goes with --sweep")
    this = side_of(question, spec)
    other, found, document = None, None, this.as_json()
    if against is not None:
        said = parse_against(against)
        there = question
        if said.vmm:
            options = () if said.vmm in POLICIES else question.vmm_options
            there = replace(question, va=None, vmm=(said.vmm,), vmm_options=options)
        other = side_of(there, said.over(spec))
        found = difference(this.plan, other.plan, said.vmm)
        document |= {"against": other.as_json(), "difference": found.as_json()}
    advice = advice_on(question, this) if advise else None
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
        if bars and not (offset or length or va or against or advise or timed):
            from pfnmap.cli.plan_again import Again

            desk.again = Again(question, repr(spec), driver)
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


def _show_side(side: Side, quiet: bool, *, legend: bool = True) -> None:
    from pfnmap.report.plan_fold import folded, summary
    from pfnmap.report.plan_table import render

    heading(side.plan.kernel)
    names = side.wanted.names if side.wanted else {}
    show(*(summary(side.plan, names) if quiet else render(*folded(side.plan, names), legend=legend)))


def _show_maps(sides: Mapping[str, Mapping[str, Any]]) -> None:
    from pfnmap.report.bar_map import bar_maps, compared, render

    show(*render(*compared([(label, bar_maps(side["mappings"])) for label, side in sides.items()])))


app = typer.Typer(add_completion=False)
app.command("plan", cls=PlanCommand)(command)
