"""A host written to a file, to be answered elsewhere: what drivers and VMMs say is of interest, and no more."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pfnmap.contract.module import Driver
from pfnmap.errors import PluginError
from pfnmap.host.capture import captured, write
from pfnmap.host.machine import read_host
from pfnmap.host.processes import SMAPS_READERS
from pfnmap.output import check_writable
from pfnmap.plan.placement import known_vmms
from pfnmap.recognition import Recognition
from pfnmap.survey.running import claims_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pfnmap.host.processes import Process
    from pfnmap.host.tree import Tree
    from pfnmap.plugins import Registry

__all__ = ["capture"]


def capture(
    tree: Tree,
    registry: Registry,
    path: str,
    *,
    replace: bool = False,
    pid: int | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> list[str]:
    """Write what is read of a host to a tar file; return a line for each file in it. `warn` is told of drivers that
    fail to say what is theirs.

    Raises BadInput for a file that cannot be written, or is there and is not to be replaced, and for a process that is
    not there.
    """
    check_writable(path, force=replace)
    vmms, drivers = known_vmms(registry), {}
    for name in registry.names("driver"):
        with suppress(PluginError):
            loaded = registry.load("driver", name)
            if issubclass(loaded, Driver):
                drivers[name] = loaded

    def of_interest(process: Process) -> bool:
        return process.command in SMAPS_READERS or bool(claims_of(process, vmms))

    packages = {package for vmm in vmms.values() for package in vmm.packages}
    files = captured(tree, read_host(tree, pid), Recognition(drivers, warn), of_interest, packages)
    write(files, path, replace=replace)
    return [
        f"{name} ({len(content)} bytes)" if isinstance(content, bytes) else f"{name} -> {content}"
        for name, content in files.items()
    ]
