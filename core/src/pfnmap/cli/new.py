"""``pfnmap new``: a package for a new architecture or driver."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pfnmap.cli.options import JsonOption, Settings
from pfnmap.cli.terminal import print_json, show
from pfnmap.errors import Unknown


def command(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="arch|driver", help="What to make.", show_default=False)],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The plugin's name.", show_default=False)],
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Where; a new directory. Else ./pfnmap-NAME.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> int:
    """Write the package of a new plugin: it installs, and its tests name what is still to be written."""
    from pfnmap.scaffold import KINDS, distribution, write_package

    if kind not in KINDS:
        raise Unknown("kind of plugin", kind, KINDS)
    settings: Settings = context.obj
    folder = folder or Path(distribution(name))
    files = [str(path) for path in write_package(kind, name, folder, settings.registry)]
    if json:
        document = {"kind": kind, "name": name, "distribution": distribution(name), "directory": str(folder)}
        print_json("new", {**document, "files": files})
        return 0
    show(*files)
    return 0
