"""``pfnmap plan``: at which level BARs will be mapped, what it costs, and why not larger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pfnmap.cli.options import JsonOption, KernelOptions, Settings, kernel_options, linked
from pfnmap.cli.terminal import heading, plain, print_json, show, warn
from pfnmap.errors import BadInput

if TYPE_CHECKING:
    from pfnmap.plan import Request
    from pfnmap.spec import KernelSpec


def _option(name: str, metavar: str, text: str, panel: str) -> object:
    return typer.Option(name, metavar=metavar, help=text, rich_help_panel=panel, show_default=False)


@kernel_options()
def command(
    context: typer.Context,
    kernel: KernelOptions,
    scenario: Annotated[
        str | None, typer.Argument(metavar="SCENARIO.toml", help="Plan the mappings of a scenario file.")
    ] = None,
    bars: Annotated[
        list[str] | None, _option("--bar", "SIZE@PHYS", "A BAR, such as 8G@0x800000000; repeatable.", "What is mapped")
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
        str | None, _option("--vmm", "POLICY", "kernel (what mmap(NULL) gives) or aligned; else both.", "Where")
    ] = None,
    mmap_base: Annotated[
        str | None, _option("--mmap-base", "ADDR", "mmap(NULL) searches downwards from here.", "Where")
    ] = None,
    dma: Annotated[
        str, typer.Option("--dma", metavar="BACKEND", help="Who maps for DMA: type1 or iommufd.", rich_help_panel="DMA")
    ] = "type1",
    kvm: Annotated[
        bool, typer.Option("--kvm", help="Say too at which level a KVM guest has it.", rich_help_panel="Guest")
    ] = False,
    gpa: Annotated[
        str | None, _option("--gpa", "ADDR", "The guest has it at this guest physical address (with --kvm).", "Guest")
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
    if va is not None and vmm is not None:
        raise BadInput("", "--va and --vmm exclude each other")
    if gpa is not None and not kvm:
        raise BadInput("", "--gpa goes with --kvm")
    base = KernelSpec()
    names: dict[str, str] = {}
    if bars:
        start = parse_size(offset, "--offset") if offset is not None else 0
        requests = of_bars(bars, start, parse_size(length, "--length") if length is not None else None)
    elif lspci is not None:
        requests, names = _of_lspci(lspci)
    else:
        requests, base = _of_scenario(scenario or "")
    requests = placed(requests, parse_address(va, "--va") if va is not None else None, vmm)
    if gpa is not None:
        requests = at_guest_address(requests, parse_address(gpa, "--gpa"))
    settings: Settings = context.obj
    image = linked(kernel.over(base), settings.registry)
    base_address = parse_address(mmap_base, "--mmap-base") if mmap_base else None
    planned = plan(image, requests, mmap_base=base_address, dma=dma, kvm=kvm)
    if json:
        print_json("plan", planned.as_json())
        return 0
    from pfnmap.report.plan_table import render

    heading(planned.kernel)
    show(*render(planned, names))
    return 0


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
