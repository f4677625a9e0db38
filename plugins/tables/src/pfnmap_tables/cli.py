"""``pfnmap tables``: the page tables that a kernel really has for vfio mappings, beside the plan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from pfnmap.cli.options import JsonOption, KernelOptions, Settings, kernel_options, linked
from pfnmap.cli.terminal import heading, print_json, show, warn
from pfnmap.errors import BadInput, Refused

if TYPE_CHECKING:
    from pfnmap.spec import KernelSpec
    from pfnmap_tables.target import Target

_PANEL = "What is read"


@kernel_options()
def command(
    context: typer.Context,
    kernel: KernelOptions,
    live: Annotated[
        bool, typer.Option("--live", help="The running kernel (root, /proc/kcore).", rich_help_panel=_PANEL)
    ] = False,
    core: Annotated[
        str | None,
        typer.Option("--core", metavar="FILE", help="A dump.", rich_help_panel=_PANEL, show_default=False),
    ] = None,
    qmp: Annotated[
        str | None,
        typer.Option(
            "--qmp", metavar="SOCKET", help="A guest that runs in QEMU.", rich_help_panel=_PANEL, show_default=False
        ),
    ] = None,
    types: Annotated[
        str | None,
        typer.Option(
            "--types",
            metavar="FILE",
            help="What the kernel's types are, where its memory does not say: BTF, or an ELF file with BTF or DWARF.",
            rich_help_panel=_PANEL,
            show_default=False,
        ),
    ] = None,
    pid: Annotated[
        str | None, typer.Option("--pid", metavar="N", help="Only this process.", show_default=False)
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 if tables differ from the plan.")] = False,
    json: JsonOption = False,
) -> int:
    """Show the page tables that a kernel really has for mappings of BARs, read without debug information, and where
    they differ from the plan."""
    named = [name for name, value in (("--live", live), ("--core", core), ("--qmp", qmp)) if value]
    if len(named) != 1:
        also = f", not {' and '.join(named)}" if named else ""
        raise BadInput("tables", f"one of --live, --core and --qmp says what is read{also}")
    if pid is not None and not (pid.isdecimal() and pid.isascii() and len(pid) <= 10):
        raise BadInput("--pid", f"{pid!r} is not the number of a process")
    try:
        from pfnmap_tables.compare import compared
        from pfnmap_tables.memory import DAMAGE
        from pfnmap_tables.opening import of_core, of_live, of_qmp
        from pfnmap_tables.report import render
        from pfnmap_tables.typefile import TypeFile
    except ImportError as error:
        raise Refused("tables", f"drgn cannot be used here: {error}") from None
    settings: Settings = context.obj or Settings()
    file = None if types is None else TypeFile.read(types)
    if live:
        target = of_live(file)
    elif core is not None:
        target = of_core(core, kernel.arch, file)
    else:
        target = of_qmp(qmp or "", kernel.arch, file)
    image = linked(_spec(kernel, target), settings.registry)
    said: list[str] = []
    try:
        found = compared(target, image, settings.registry, None if pid is None else int(pid), said.append)
    except DAMAGE as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise Refused(target.name, f"its memory does not hold together ({what}): is it cut, or damaged?") from None
    if left_out := len(target.memory.left_out):
        said.append(
            f"{left_out} pages that the kernel uses are not in the dump and were read as zeros: true where zeros are "
            "what was left out (makedumpfile -d 1); a makedumpfile older than the kernel leaves out more"
        )
    for one in said:
        warn(one)
    if json:
        mappings = [one.as_json(image) for one in found]
        print_json("tables", {"kernel": image.describe(), "mappings": mappings, "warnings": said})
    else:
        heading(image.describe())
        show(*render(found, image))
    return int(check and any(one.differs for one in found))


def _spec(kernel: KernelOptions, target: Target) -> KernelSpec:
    """Return what the target says of its kernel, with what the user says over it."""
    from pfnmap.spec import KernelSpec

    cpu = {}
    if target.arch == "x86_64" and (five := target.number("pgtable_l5_enabled")) is not None:
        cpu["la57"] = bool(five)
    base = KernelSpec(arch=target.arch, release=target.release or None, thp=target.thp(), cpu=cpu)
    if target.page_size:
        base = replace(base, page_size=str(target.page_size))
    return kernel.over(base)
