"""``pfnmap run``: a scenario, bit by bit."""

from __future__ import annotations

from typing import Annotated

import typer

from pfnmap.cli.options import JsonOption, KernelOptions, LimitOption, Settings, kernel_options
from pfnmap.cli.processes import JobsOption
from pfnmap.cli.run_one import carried_out
from pfnmap.cli.terminal import print_json, show, warn
from pfnmap.errors import BadInput


@kernel_options()
def command(
    context: typer.Context,
    kernel: KernelOptions,
    scenarios: Annotated[
        list[str],
        typer.Argument(
            metavar="SCENARIO.toml", help="Scenario file; of several, what each came to.", show_default=False
        ),
    ],
    trace: Annotated[
        bool,
        typer.Option(
            "--trace",
            help="Show every event as it happens; with --dump and --json, too, what each step leaves in the tables.",
        ),
    ] = False,
    dump: Annotated[bool, typer.Option("--dump", help="Show the page tables at the end.")] = False,
    maps: Annotated[bool, typer.Option("--map", help="Draw what of each BAR is mapped at the end.")] = False,
    jobs: JobsOption = 1,
    limit: LimitOption = None,
    json: JsonOption = False,
) -> int:
    """Run a scenario bit by bit on a simulated machine; options override the kernel that it names."""
    settings: Settings = context.obj
    if len(scenarios) > 1:
        from pfnmap.cli.run_many import run_many

        if maps or ((trace or dump) and not json):
            raise BadInput("", "--trace, --dump and --map show one scenario; of several --json has trace and dump")
        return run_many(scenarios, kernel, settings, jobs, limit, trace, dump, json)
    run, document, stopped = carried_out(scenarios[0], kernel, settings.registry, limit, trace, dump, quiet=json)
    if step := document.get("interrupted"):
        warn(f"interrupted in {scenarios[0]}: step {step['step']} {step['op']}")
    if maps and not json:
        from pfnmap.report.bar_map import render
        from pfnmap.report.run_map import run_maps

        drawn = render(run_maps(run))
        show(*drawn) if drawn else show("", "nothing of a BAR is mapped at the end")
    if json:
        print_json("run", document)
    if stopped is not None:
        raise stopped
    return 1 if document["failed"] else 0
