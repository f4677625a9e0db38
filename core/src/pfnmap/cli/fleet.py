"""``pfnmap fleet``: what the answers of ``--batch`` come to."""

from __future__ import annotations

from typing import Annotated

import typer

from pfnmap.cli.options import JsonOption
from pfnmap.cli.terminal import counting, print_json, show
from pfnmap.errors import BadInput


def command(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="RESULTS.jsonl", help="What --batch wrote; else stdin.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> int:
    """Summarise what `plan --batch` or `host --batch` wrote: hosts, devices, BARs by level, reasons, and the fix that
    helps most hosts."""
    from pfnmap.batch import lines
    from pfnmap.fleet import Fleet
    from pfnmap.report.fleet import render_fleet

    def packed(path: str) -> bytes:
        raise BadInput(path, "a tar file; host --batch answers it, and fleet reads the answer")

    fleet = Fleet()
    with counting("hosts") as progress:
        for line in lines(files or ["-"], packed):
            fleet.add(line)
            progress(line.number)
    if json:
        print_json("fleet", fleet.as_json())
    else:
        show(*render_fleet(fleet))
    return int(not fleet.hosts)
