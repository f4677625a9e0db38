"""A host as its files tell of it: which kernel it runs and how it was booted, its PCI devices, its processes.

A piece that is not there or must not be read is `Missing`, with what it would have told; the rest is read all the same.
Nothing is written, nothing is executed, and no file is opened whose reading changes what a process maps
(`pfnmap.host.processes`).
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import Final, TypeVar

from pfnmap.errors import BadInput
from pfnmap.host.bounded import unpacked
from pfnmap.host.dotconfig import LIMIT as CONFIG_LIMIT
from pfnmap.host.dotconfig import DotConfig, parse_dotconfig
from pfnmap.host.pci import Skipped
from pfnmap.host.processes import Process, pids, read_process
from pfnmap.host.sysfs import PCI_DEVICES, PciFunction, read_functions
from pfnmap.host.tree import Directory, Tree
from pfnmap.records import dataclass

__all__ = ["PAGE_SIZE", "Host", "Missing", "config_paths", "read_host"]

_LIMIT: Final = 1 << 16
_CPUINFO: Final = 1 << 22
_T = TypeVar("_T")

RELEASE, MACHINE = "/proc/sys/kernel/osrelease", "/proc/sys/kernel/arch"
THP = "/sys/kernel/mm/transparent_hugepage/enabled"
PAGE_SIZE = "/page_size"
"""Bytes of a page, a file of captured hosts alone: a running machine tells it by sysconf(3), and by no file."""


@dataclass(frozen=True, slots=True)
class Missing:
    """What could not be read, why, and what it would have told."""

    what: str
    why: str
    would_tell: str

    def as_json(self) -> dict[str, str]:
        """Return it in the form that `host --json` prints."""
        return {"what": self.what, "why": self.why, "would_tell": self.would_tell}


@dataclass(frozen=True)
class Host:
    """A host. What is None, or empty, is not known; `missing` says why.

    `machine`: what the kernel calls its architecture (``uname -m``). `parameters`: what its command line says of
    `KEPT_PARAMETERS`. `cpuinfo`: the first processor's lines. `iommus`: their names. `page_size`: bytes.
    """

    release: str | None
    machine: str | None
    distribution: str | None
    config: DotConfig | None
    config_source: str | None
    thp: str | None
    parameters: tuple[str, ...]
    cpuinfo: Mapping[str, str]
    page_size: int | None
    iommus: tuple[str, ...]
    functions: tuple[PciFunction, ...]
    skipped: tuple[Skipped, ...]
    processes: tuple[Process, ...]
    missing: tuple[Missing, ...] = field(default=())

    @property
    def virtualization(self) -> str | None:
        """The CPU's flag for virtual machines, where it shows one."""
        return next((flag for flag in self.cpuinfo.get("flags", "").split() if flag in ("vmx", "svm")), None)


KEPT_PARAMETERS: Final = re.compile(
    r"(?:transparent_hugepage|(?:intel|amd)_iommu|iommu(?:\.\w+)?|(?:default_)?hugepagesz|hugepages|no5lvl|nogbpages"
    r"|pci)(?:=.*)?"
)
"""The parameters of a kernel's command line that are looked at."""


def read_host(tree: Tree, pid: int | None = None) -> Host:
    """Read a host, with all its processes or one. Raises BadInput for a `pid` that is not there."""
    reader = _Reader(tree)
    told = reader.told
    release = told(RELEASE, "which kernel it runs", lambda: tree.text(RELEASE, _LIMIT).strip())
    functions, skipped = told(PCI_DEVICES, "its PCI devices and their BARs", lambda: read_functions(tree)) or ((), ())
    config, source = reader.config(release)
    thp = told(THP, "whether huge pages are on (transparent_hugepage)", lambda: _chosen(tree.text(THP, _LIMIT)))
    line = told("/proc/cmdline", "how it was booted", lambda: tree.text("/proc/cmdline", _LIMIT))
    cpuinfo = told("/proc/cpuinfo", "which CPU it has", lambda: _first_processor(tree.text("/proc/cpuinfo", _CPUINFO)))
    processes = reader.processes(pid)
    if functions and all(one.config_bytes <= 64 for one in functions):
        why = "only the first 64 bytes can be read" if functions[0].config_bytes else "cannot be read"
        reader.missing.append(Missing(f"{PCI_DEVICES}/*/config", why, "where MSI-X tables are (root)"))
    return Host(
        release,
        told(MACHINE, "its architecture", lambda: tree.text(MACHINE, _LIMIT).strip()),
        told("/etc/os-release", "its distribution", lambda: _distribution(tree)),
        config,
        source,
        thp,
        tuple(word for word in (line or "").split() if KEPT_PARAMETERS.fullmatch(word)),
        cpuinfo or {},
        _page_size(tree),
        tuple(name for name in reader.quietly("/sys/class/iommu") if re.fullmatch(r"[\w.:-]+", name)),
        tuple(functions),
        tuple(skipped),
        tuple(processes),
        tuple(reader.missing),
    )


class _Reader:
    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.missing: list[Missing] = []

    def told(self, what: str, would_tell: str, read: Callable[[], _T]) -> _T | None:
        """Return what is read; None for what cannot be, which is noted."""
        try:
            return read()
        except OSError as error:
            self.missing.append(Missing(what, (error.strerror or str(error)).lower(), would_tell))
            return None

    def quietly(self, path: str) -> list[str]:
        try:
            return self.tree.names(path)
        except OSError:
            return []

    def config(self, release: str | None) -> tuple[DotConfig | None, str | None]:
        """Return the kernel's configuration and where it stands."""
        paths = config_paths(release)
        for path in paths:
            try:
                text = unpacked(self.tree.read(path, CONFIG_LIMIT), CONFIG_LIMIT, path).decode("utf-8", "replace")
                return parse_dotconfig(text, path), path
            except (OSError, zlib.error):
                continue
            except BadInput as error:
                self.missing.append(Missing(path, error.what, "how the kernel was built"))
                return None, None
        self.missing.append(Missing(" or ".join(paths[:2]), "neither can be read", "how the kernel was built"))
        return None, None

    def processes(self, pid: int | None) -> Iterator[Process]:
        """Return the processes that map files; note those that cannot be looked into."""
        there = self.told("/proc", "which processes map BARs", lambda: pids(self.tree)) or []
        if pid is not None:
            if pid not in there:
                raise BadInput(f"--pid {pid}", f"no such process on {self.tree.name}")
            there = [pid]
        read = [process for one in there if (process := read_process(self.tree, one))]
        if pid is not None and not read:
            raise BadInput(f"--pid {pid}", f"no such process on {self.tree.name}")
        closed = [process for process in read if process.maps is None]
        if closed:
            names = ", ".join(f"{process.pid} {process.command}".strip() for process in closed[:4])
            more = f" and {len(closed) - 4} more" if len(closed) > 4 else ""
            many = "1 process" if len(closed) == 1 else f"{len(closed)} processes"
            what = f"/proc/PID/maps of {many} ({names}{more})"
            self.missing.append(Missing(what, "permission denied", "what they map (root)"))
        return iter(read)


def config_paths(release: str | None) -> tuple[str, ...]:
    """Return where the configuration of a running kernel is looked for."""
    if release is None or "/" in release:
        return ("/proc/config.gz",)
    return (
        "/proc/config.gz",
        f"/boot/config-{release}",
        f"/usr/lib/modules/{release}/config",
        f"/lib/modules/{release}/config",
    )


def _chosen(text: str) -> str | None:
    found = re.search(r"\[(\w+)\]", text)
    return found[1] if found else None


def _distribution(tree: Tree) -> str | None:
    text = tree.text("/etc/os-release", _LIMIT)
    found = re.search(r"^PRETTY_NAME=([\"']?)(.*)\1$", text, re.MULTILINE)
    return found[2] if found else None


def _first_processor(text: str) -> dict[str, str]:
    block = text.strip().partition("\n\n")[0]
    rows = (line.partition(":") for line in block.splitlines())
    return {name.strip(): value.strip() for name, colon, value in rows if colon}


def _page_size(tree: Tree) -> int | None:
    if isinstance(tree, Directory) and tree.live:
        return os.sysconf("SC_PAGE_SIZE")
    try:
        return int(tree.text(PAGE_SIZE, 64))
    except (OSError, ValueError):
        return None
