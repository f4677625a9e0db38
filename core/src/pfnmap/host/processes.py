"""A host's processes, as far as they can map BARs: ``maps``, ``status``, links of open files and their ``fdinfo``.

Never opened are ``smaps``, ``smaps_rollup`` and ``numa_maps``: reading them drops the 1G leaves of what a process maps
(FINDINGS F5), and the next touch faults again. What is opened here leaves page tables alone.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Collection, Mapping
from typing import Final

from pfnmap.host.maps import MAPS
from pfnmap.host.tree import Tree
from pfnmap.records import dataclass

__all__ = ["MAPS_LIMIT", "SMAPS_READERS", "OpenFile", "Process", "Vma", "packaged", "pids", "read_process"]

MAPS_LIMIT = 1 << 24
SMAPS_READERS: Final[Mapping[str, str]] = {
    "atop": "atop(1): with R it shows PSS, from smaps",
    "numastat": "numastat(8): -p reads numa_maps",
    "prmon": "prmon's README: PSS from smaps_rollup or smaps",
    "process-exporte": "process-exporter's README: -gather-smaps is on by default",
    "ps_mem": "ps_mem's README: private and shared memory from smaps",
    "smem": "smem(8): PSS and USS from smaps",
}
"""Programs that read files which drop 1G leaves (FINDINGS F5), by the name that a process shows, and who says so. By
their documentation, not run."""

_OF_PACKAGES: Final = re.compile(r"/(usr/(?!local/)|s?bin/|lib\w*/)")
_LIMIT = 1 << 14
_FILES = 1 << 16
_SHARED_AND_INODE = re.compile(r"\S+ \S\S\S(\S) \S+ \S+ (\d+)")
_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class Vma:
    """A line of ``maps``. `offset` and `inode` are those of the file, `accessible`: it has any of r, w and x."""

    start: int
    end: int
    accessible: bool
    offset: int
    inode: int
    path: str


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open file: what its link says, and its ``fdinfo`` ("" where it cannot be read)."""

    link: str
    fdinfo: str

    @property
    def inode(self) -> int | None:
        """The inode's number, which fdinfo has since 5.14."""
        found = re.search(r"^ino:\s*(\d+)$", self.fdinfo, re.MULTILINE)
        return int(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class Process:
    """A process. `command`: its name, at most 15 characters; `executable`: its path, None where it cannot be told.
    `vmpte`: bytes of page tables (VmPTE), None where it has none or says none. `maps` and `files` are None where they
    must not be read."""

    pid: int
    command: str
    executable: str | None
    vmpte: int | None
    maps: tuple[Vma, ...] | None
    files: tuple[OpenFile, ...] | None


def packaged(executable: str) -> bool:
    """Tell whether a distribution's package can have an executable: none is in /usr/local, /home, /opt, /nix (FHS 3.0:
    packages of a distribution are in /usr and what links there). A name without a path says nothing against it."""
    return not executable.startswith("/") or bool(_OF_PACKAGES.match(executable))


def pids(tree: Tree) -> list[int]:
    """Return the processes that there are. Raises OSError where there is no /proc."""
    return sorted(int(name) for name in tree.names("/proc") if name.isdecimal() and name.isascii())


def read_process(tree: Tree, pid: int) -> Process | None:
    """Return a process, None for one that is gone."""
    where = f"/proc/{pid}"
    try:
        status = tree.text(f"{where}/status", _LIMIT)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH, errno.ENOTDIR) and tree.kind(f"{where}/maps") is None:
            return None
        status = ""
    return Process(
        pid,
        _field(status, "Name") or "",
        _executable(tree, where),
        _vmpte(status),
        _maps(tree, where),
        _files(tree, where),
    )


def _field(status: str, name: str) -> str | None:
    found = re.search(rf"^{name}:\t *(.*)$", status, re.MULTILINE)
    return found[1] if found else None


def _vmpte(status: str) -> int | None:
    found = re.fullmatch(r"(\d{1,15}) kB", _field(status, "VmPTE") or "")
    return int(found[1]) * 1024 if found else None


def _executable(tree: Tree, where: str) -> str | None:
    try:
        return tree.link(f"{where}/exe").removesuffix(_DELETED)
    except OSError:
        return None


def _maps(tree: Tree, where: str) -> tuple[Vma, ...] | None:
    try:
        text = tree.text(f"{where}/maps", MAPS_LIMIT)
    except OSError as error:
        return () if error.errno == errno.ESRCH else None  # a kernel's thread, or one that ends
    return tuple(vma for line in text.splitlines() if (vma := _vma(line.rstrip())))


def _vma(line: str) -> Vma | None:
    row, more = MAPS.fullmatch(line), _SHARED_AND_INODE.match(line)
    if row is None or more is None:
        return None
    start, end = int(row[1], 16), int(row[2], 16)
    accessible = line.split(" ", 2)[1][:3] != "---"
    return Vma(start, end, accessible, int(row[3], 16), int(more[2]), row[4] or "") if start < end else None


def _files(tree: Tree, where: str) -> tuple[OpenFile, ...] | None:
    try:
        names: Collection[str] = tree.names(f"{where}/fd")[:_FILES]
    except OSError:
        return None
    found = []
    for name in names:
        try:
            link = tree.link(f"{where}/fd/{name}")
        except OSError:  # closed by now
            continue
        if link.startswith(("anon_inode:", "/dev/", "[")):  # what is none of a device is not looked into
            try:
                fdinfo = tree.text(f"{where}/fdinfo/{name}", _LIMIT)
            except OSError:
                fdinfo = ""
            found.append(OpenFile(link, fdinfo))
    return tuple(found)
