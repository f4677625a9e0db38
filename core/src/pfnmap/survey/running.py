"""Which processes of a host are VMMs, and of which version: VMMs say what their executables and packages are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pfnmap.errors import PfnmapError
from pfnmap.host.machine import Host, Missing
from pfnmap.host.packages import DPKG_STATUS, installed
from pfnmap.host.processes import Process, packaged
from pfnmap.host.tree import Tree
from pfnmap.plan.placement import known_vmms, most_general
from pfnmap.plugins import NO_VMM
from pfnmap.records import dataclass

if TYPE_CHECKING:
    from pfnmap.contract.placement import Vmm
    from pfnmap.plugins import Registry

__all__ = ["RunningVmm", "claims_of", "running_vmms"]

_COMMAND = 15
"""Characters of a process's name (TASK_COMM_LEN)."""


@dataclass(frozen=True, slots=True)
class RunningVmm:
    """A process that is a VMM. `policy`: what ``--vmm`` calls it, with its version where that is known; `package`: name
    and version of the package that has it."""

    pid: int
    name: str
    version: str | None
    policy: str | None
    executable: str | None
    package: str | None

    def as_json(self) -> dict[str, Any]:
        """Return it in the form that `host --json` prints."""
        return {name: getattr(self, name) for name in self.__slots__}


def running_vmms(host: Host, tree: Tree, registry: Registry, missing: list[Missing]) -> list[RunningVmm]:
    """Return the processes that are VMMs which plugins know; `missing` gets what cannot be told of their versions."""
    known = known_vmms(registry)
    if not any(vmm.executables for vmm in known.values()):
        missing.append(Missing("VMMs", NO_VMM, "which processes are VMMs, and what would mend where they map BARs"))
    claimed = [(process, claims) for process in host.processes if (claims := claims_of(process, known))]
    versions: Mapping[str, str] = {}
    if claimed:
        names = {package for _, claims in claimed for name in claims for package in known[name].packages}
        try:
            versions = installed(tree, names)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            missing.append(Missing(DPKG_STATUS, why, "the versions of the VMMs (no file of dpkg's or rpm's)"))
    for process, claims in claimed:
        if process.executable is not None and not packaged(process.executable):
            why = "no package of the distribution has it"
            missing.append(Missing(f"{process.executable} (process {process.pid})", why, f"which {claims[0]} it is"))
    return [_running(process, claims, known, versions) for process, claims in claimed]


def claims_of(process: Process, known: Mapping[str, type[Vmm]]) -> list[str]:
    """Return the VMMs whose executable a process runs."""
    if process.executable is not None:
        called = PurePosixPath(process.executable).name
        return [name for name, vmm in known.items() if any(fnmatchcase(called, one) for one in vmm.executables)]
    return [
        name
        for name, vmm in known.items()
        if any(fnmatchcase(process.command, one[:_COMMAND]) for one in vmm.executables)
    ]


def _running(
    process: Process, claims: Sequence[str], known: Mapping[str, type[Vmm]], versions: Mapping[str, str]
) -> RunningVmm:
    of_package = process.executable is None or packaged(process.executable)
    for name in claims:
        for package in known[name].packages:
            if of_package and package in versions:
                version, policy = _version(name, known[name], versions[package])
                said = f"{package} {versions[package]}"
                return RunningVmm(process.pid, name, version, policy, process.executable, said)
    general = most_general({name: known[name] for name in claims}) or claims[0]
    return RunningVmm(process.pid, general, None, None, process.executable, None)


def _version(name: str, vmm: type[Vmm], package: str) -> tuple[str | None, str | None]:
    """Return a VMM's own version in a package's, and what ``--vmm`` calls it; None for one that is not known."""
    try:
        made = vmm(package, newest=True)
    except PfnmapError:
        return None, None
    return ".".join(map(str, made.number[:2])) if made.number else package, f"{name}-{package}"
