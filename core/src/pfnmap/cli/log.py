"""``pfnmap log``: what the fault handler's lines in the kernel's log tell."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pfnmap.cli.options import JsonOption, KernelOptions, Settings, kernel_options, linked
from pfnmap.cli.terminal import heading, print_json, show, warn
from pfnmap.contract.defaults import DEFAULT_DRIVER
from pfnmap.errors import BadInput, PluginError

if TYPE_CHECKING:
    from pfnmap.plugins import Registry


@kernel_options()
def command(
    context: typer.Context,
    kernel: KernelOptions,
    file: Annotated[str, typer.Argument(metavar="FILE", help="dmesg, journalctl -k, a syslog; - is stdin.")],
    root: Annotated[
        str | None,
        typer.Option(
            "--root",
            metavar="DIR|TAR",
            help="The captured host that it is of, whose plan it is compared with.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 if it contradicts the plan.")] = False,
    json: JsonOption = False,
) -> int:
    """Read the fault handler's debug lines: faults by order and result for each BAR, what they cover, and where they
    contradict the plan of the kernel, or of the host with --root."""
    from pfnmap.host.bounded import source_name
    from pfnmap.host.paste import lines_of, read_paste
    from pfnmap.host.tree import open_tree
    from pfnmap.recognition import Recognition
    from pfnmap.report.faultlog import render_log
    from pfnmap.survey import survey
    from pfnmap.survey.faultlog import judge, read_log

    registry = (context.obj or Settings()).registry
    asked = Recognition(_drivers(registry), warn)
    log = read_log(lines_of(read_paste(file), source_name(file)), source_name(file), asked)
    if root is None:
        image = linked(kernel.over(), registry)
        judged = judge(log, image)
    else:
        found = survey(open_tree(root), registry, kernel.over, warn)
        image = found.kernel
        judged = judge(log, image, found.rows, found.host.functions)
    document = log.as_json(image, judged)
    if json:
        print_json("log", document)
    else:
        heading(document["kernel"])
        show(*render_log(log, image, judged))
    return int(check and any(one["contradicts"] for one in document["devices"]))


def _drivers(registry: Registry) -> dict[str, Any]:
    from pfnmap.contract.module import Driver
    from pfnmap.plugins import why_unusable

    found = {}
    for name in registry.names("driver"):
        with suppress(PluginError):  # told where the kernel is linked
            loaded = registry.load("driver", name)
            if issubclass(loaded, Driver):
                found[name] = loaded
    if not found:
        raise BadInput("", why_unusable(registry, "driver", DEFAULT_DRIVER))
    return found
