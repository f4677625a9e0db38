"""``pfnmap caps``: what architectures can do for huge pfnmaps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pfnmap.cli.options import JsonOption, KernelOptions, Settings, kernel_options
from pfnmap.cli.terminal import heading, only_kernel, print_json, show, styled, table, warn
from pfnmap.errors import PfnmapError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pfnmap.report.text import Table

_COLUMNS = ("level", "entry size", "order", "special", "mkspecial", "pgprot", "pfnmap")
_STYLES = {"arch": "green", "generic": "yellow", "absent": "red"}


@kernel_options()
def command(
    context: typer.Context,
    kernel: KernelOptions,
    archs: Annotated[
        list[str] | None, typer.Argument(metavar="ARCH", help="Architectures; all that are installed if left out.")
    ] = None,
    json: JsonOption = False,
) -> int:
    """Show per level who provides the special bit, and whether a pfnmap can have entries that large."""
    from pfnmap.report.caps import capabilities

    settings: Settings = context.obj
    registry = settings.registry
    asked = archs or ([kernel.arch] if kernel.arch else [])
    documents: dict[str, dict[str, Any]] = {}
    failures: dict[str, PfnmapError] = {}
    said: list[str] = []
    for name in asked or registry.architectures():
        try:
            image = kernel.over(arch=name).link(registry, said.append)
        except PfnmapError as error:
            if asked:
                raise
            failures[name] = error
        else:
            documents[name] = {**capabilities(image), "kernel": image.describe()}
    for text in dict.fromkeys(said):
        warn(text)
    for name, failure in failures.items():
        if not documents:
            raise failure
        warn(f"{name} is left out: {failure}")
    if json:
        kernels = [document["kernel"] for document in documents.values()]
        print_json("caps", {**only_kernel(kernels), "archs": documents})
        return 0
    for number, document in enumerate(documents.values()):
        if number:
            show("")
        heading(document["kernel"])
        show(_table(document["levels"]), "")
        show("  ".join(f"{symbol}={value}" for symbol, value in document["config"].items()), "")
        show(_users(document["users"]))
    return 0


def _users(users: Mapping[str, Mapping[str, list[str]]]) -> Table:
    rows = [(name, ", ".join(user["provides"]), ", ".join(user["consumes"])) for name, user in users.items()]
    return table(("plugin", "provides", "calls of the mm core"), rows)


def _table(levels: Mapping[str, Mapping[str, Any]]) -> Table:
    from pfnmap.sizes import format_size

    rows = []
    for level, row in levels.items():
        owners = [styled(row[op], _STYLES[row[op]]) for op in ("special", "mkspecial", "pgprot")]
        answer = styled("yes", "bold green") if row["pfnmap"] else styled("no", "bold red")
        name = f"{level} (folded)" if row["folded"] else level
        rows.append((name, format_size(row["size"]), row["order"], *owners, answer))
    return table(_COLUMNS, rows, numbers=("entry size", "order"))
