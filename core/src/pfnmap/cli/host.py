"""``pfnmap host``: what the VMs of a running or a captured host have, and what stops the next level."""

from __future__ import annotations

from typing import Annotated

import typer

from pfnmap.cli.options import JsonOption, KernelOptions, Settings, kernel_options
from pfnmap.cli.terminal import heading, print_json, show, warn
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
        int | None, typer.Option("--pid", metavar="N", help="Only this process.", show_default=False)
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 if VmPTE contradicts the plan.")] = False,
    json: JsonOption = False,
) -> int:
    """Read a host, this one or a captured one: which BARs its VMs map, at which level, why not at a larger one, and
    what would mend it.

    It writes nothing, needs no root for what needs none, and never opens what drops 1G leaves (smaps, numa_maps).
    """
    from pfnmap.host.tree import Directory, open_tree
    from pfnmap.report.host import render_host
    from pfnmap.survey import survey

    settings: Settings = context.obj or Settings()
    tree = Directory() if root is None else open_tree(root)
    if capture is not None:
        from pfnmap.capture import capture as write_capture

        found = write_capture(tree, settings.registry, capture, replace=force, pid=pid)
        if json:
            print_json("host", {"captured": {"file": capture, "files": found}})
        else:
            show(*found)
        return 0
    if force:
        raise BadInput("--force", "goes with --capture")
    answer = survey(tree, settings.registry, kernel.over, warn, pid)
    if json:
        print_json("host", answer.as_json())
    else:
        heading(answer.plan.kernel)
        show(*render_host(answer))
    return int(check and any(one.agrees is False for one in answer.vmpte.values()))
