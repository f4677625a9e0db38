"""``pfnmap kconfig``: a resolved configuration, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pfnmap.cli.options import JsonOption, KernelOptions, Settings, kernel_options, linked
from pfnmap.cli.terminal import heading, print_json, show, styled, table

if TYPE_CHECKING:
    from rich.tree import Tree

    from pfnmap.config import Reason

_STYLES = {"y": "green", "m": "green", "n": "red", "undefined": "yellow"}


@kernel_options("arch")
def command(
    context: typer.Context,
    kernel: KernelOptions,
    arch: Annotated[str, typer.Argument(metavar="ARCH", help="Architecture.", show_default=False)],
    symbols: Annotated[
        list[str] | None, typer.Argument(metavar="SYMBOL", help="Symbols; all of them if left out.")
    ] = None,
    explain: Annotated[
        list[str] | None,
        typer.Option("--explain", metavar="SYMBOL", help="Say as a tree why it has its value; repeatable."),
    ] = None,
    json: JsonOption = False,
) -> int:
    """Show the values that Kconfig symbols resolve to, and with --explain what decided."""
    settings: Settings = context.obj
    asked = [name.removeprefix("CONFIG_") for name in symbols or ()]
    explained = [name.removeprefix("CONFIG_") for name in explain or ()]
    spec = kernel.over(arch=arch)
    registry = settings.registry
    image = linked(spec, registry)
    config = image.config
    # To explain a symbol is to refuse a name that nobody declares.
    reasons = {name: config.explain(name) for name in (*asked, *explained)}
    values = {name: config.value(name) for name in reasons} if reasons else dict(sorted(config.items()))
    conflicts = [conflict._asdict() for conflict in config.conflicts]
    if json:
        document: dict[str, Any] = {"kernel": image.describe(), "values": values, "conflicts": conflicts}
        if explained:
            document["explain"] = [_reason_json(reasons[name]) for name in explained]
        print_json("kconfig", document)
        return 0
    heading(image.describe())
    for name, value in values.items():
        if name not in explained:
            show(styled(f"{name}={value}", _STYLES.get(value, "")))
    for name in explained:
        show(_tree(reasons[name]))
    if conflicts:
        rows = [(c["symbol"], c["file"] or "-", c["derived"] or "-") for c in conflicts]
        show("", table(("conflicting symbol", "in the file", "follows"), rows))
    return 0


def _reason_json(reason: Reason) -> dict[str, Any]:
    children = [_reason_json(child) for child in reason.children]
    return {"text": reason.text, "value": reason.value, **({"children": children} if children else {})}


def _tree(reason: Reason) -> Tree:
    from rich.tree import Tree

    def label(node: Reason) -> Any:
        return styled(node.text, "").append(" = ").append(node.value, _STYLES.get(node.value, ""))

    def grow(tree: Tree, node: Reason) -> None:
        for child in node.children:
            grow(tree.add(label(child)), child)

    tree = Tree(label(reason), guide_style="dim")
    grow(tree, reason)
    return tree
