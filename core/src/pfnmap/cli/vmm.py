"""``pfnmap vmm``: what placement policies leave smaller than the kernel could map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pfnmap.cli.options import JsonOption, KernelOptions, Settings, kernel_options, linked
from pfnmap.cli.terminal import heading, print_json, show
from pfnmap.errors import BadInput, PluginError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pfnmap.kernel import Kernel
    from pfnmap.plan.losses import Loss
    from pfnmap.plugins import Registry


@kernel_options()
def command(
    context: typer.Context,
    kernel: KernelOptions,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME[-VERSION]", help="A VMM, of all its versions or of one; else all."),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--vmm-opt", metavar="OPT", help="An option of the VMM; repeatable.", show_default=False),
    ] = None,
    assume_newest: Annotated[
        bool,
        typer.Option(
            "--vmm-assume-newest", help="Take a version that is newer than what is known for the newest known."
        ),
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 if something stays smaller.")] = False,
    json: JsonOption = False,
) -> int:
    """Go over the BARs of real devices: which areas does a VMM leave smaller than the kernel could map, why, and which
    rule would mend that."""
    from pfnmap.plan.losses import device_classes, losses
    from pfnmap.report.vmm import render

    settings: Settings = context.obj
    registry = settings.registry
    asked = list(_asked(name, registry))
    image: Kernel = linked(kernel.over(), registry)
    classes = device_classes()
    settled = {"vmm_options": options or (), "newest_vmm": assume_newest}
    found: list[tuple[str, list[str], Sequence[Loss]]] = [
        (policy, versions, losses(image, policy, classes, registry, **settled)) for policy, versions in asked
    ]
    if json:
        policies = [
            {"name": policy, "versions": versions, "losses": [loss.as_json() for loss in lost]}
            for policy, versions, lost in found
        ]
        print_json("vmm", {"kernel": image.describe(), "policies": policies})
    else:
        heading(image.describe())
        for policy, versions, lost in found:
            show(*render(policy, versions, lost))
    return 1 if check and any(lost for _, _, lost in found) else 0


def _asked(name: str | None, registry: Registry) -> Iterator[tuple[str, list[str]]]:
    """Yield the policies that are meant, by what they are called, and for which versions each speaks: one of each set
    that does the same."""
    from pfnmap.plan import POLICIES
    from pfnmap.plan.placement import vmm_class
    from pfnmap.plugins import NO_VMM

    programs = [plugin for plugin in registry.names("vmm") if plugin not in POLICIES]
    for plugin in [name] if name else programs:
        try:
            known = vmm_class(plugin, registry)
        except PluginError:
            if name:
                raise
            continue
        if not known.versions or plugin.replace("-", "_") != known.name:
            yield plugin, list(known.versions)
            continue
        for versions in known.versions:
            yield f"{plugin}-{versions.rpartition(' ')[2]}", [versions]
    if not name and not programs:
        raise BadInput("", NO_VMM)
