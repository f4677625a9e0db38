"""``pfnmap host``: what the VMs of a running or a captured host have, and what stops the next level."""

from __future__ import annotations

from typing import Annotated

import typer

from pfnmap.cli.desk import DESK, BatchOption, DaskOption, Desk, JobsOption, run_batch
from pfnmap.cli.options import JsonOption, KernelOptions, Settings, kernel_options
from pfnmap.cli.terminal import heading, print_json, show
from pfnmap.errors import BadInput


@kernel_options()
def command(
    context: typer.Context,
    kernel: KernelOptions,
    root: Annotated[
        str | None,
        typer.Option("--root", metavar="DIR|TAR", help="A captured host; else this machine.", show_default=False),
    ] = None,
    capture: Annotated[
        str | None,
        typer.Option("--capture", metavar="FILE.tar", help="Write what is read, and stop.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --capture replace a file.")] = False,
    pid: Annotated[
        str | None, typer.Option("--pid", metavar="N", help="Only this process.", show_default=False)
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 if VmPTE contradicts the plan.")] = False,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="With --batch: JSON lines, tar files; else none.", show_default=False),
    ] = None,
    batch: BatchOption = False,
    jobs: JobsOption = None,
    dask: DaskOption = None,
    json: JsonOption = False,
) -> int:
    """Read a host, this one or a captured one: which BARs its VMs map, at which level, why not at a larger one, and
    what would mend it.

    It writes nothing, needs no root for what needs none, and never opens what drops 1G leaves (smaps, numa_maps).
    """
    from pfnmap.host.tree import Directory, open_tree
    from pfnmap.report.host import render_host
    from pfnmap.survey import survey

    if batch or jobs is not None or dask is not None:
        return run_batch(context, "host", inputs or (), {})
    if inputs:
        raise BadInput(inputs[0], "files go with --batch, one captured host with --root")
    settings: Settings = context.obj or Settings()
    number = None if pid is None else _number(pid)
    desk: Desk = context.meta.get(DESK) or Desk(settings.registry)
    tree = Directory() if root is None else open_tree(root)
    if capture is not None:
        from pfnmap.survey.capture import capture as write_capture

        found = write_capture(tree, settings.registry, capture, replace=force, pid=number, warn=desk.warn)
        if json:
            print_json("host", {"captured": {"file": capture, "files": found}})
        else:
            show(*found)
        return 0
    if force:
        raise BadInput("--force", "goes with --capture")
    answer = survey(tree, settings.registry, kernel.over, desk.warn, number, desk.link)
    if desk.take is not None:
        desk.take(answer.as_json())
    elif json:
        print_json("host", answer.as_json())
    else:
        heading(answer.plan.kernel)
        show(*render_host(answer))
    return int(check and any(one.agrees is False for one in answer.vmpte.values()))


def _number(pid: str) -> int:
    if not (pid.isdecimal() and pid.isascii()) or len(pid) > 10:
        raise BadInput("--pid", f"{pid!r} is not the number of a process")
    return int(pid)
