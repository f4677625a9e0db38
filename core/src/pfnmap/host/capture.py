"""A host written to a tar file, so that it can be answered elsewhere: what `read_host` reads of it, and no more.

Left out is what is of nobody's concern: serial numbers, MAC and IP addresses, names of hosts, users and guests, command
lines, paths of files, all processes but those that map BARs, that are VMMs or that read smaps. Of the PCI configuration
space the header and the MSI-X capability are kept, of other mappings than a BAR's their addresses, of the kernel's
configuration no text (CONFIG_CMDLINE, CONFIG_DEFAULT_HOSTNAME) but what names its release and compiler.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Final, TypeAlias

from pfnmap.host.bounded import unpacked
from pfnmap.host.dotconfig import LIMIT as CONFIG_LIMIT
from pfnmap.host.machine import MACHINE, PAGE_SIZE, RELEASE, THP, Host
from pfnmap.host.packages import DPKG_STATUS, installed
from pfnmap.host.processes import Process, Vma, packaged
from pfnmap.host.sysfs import PCI_DEVICES, PciFunction
from pfnmap.host.tree import Tree
from pfnmap.output import write_whole
from pfnmap.recognition import Recognition

__all__ = ["Files", "captured", "write"]

Files: TypeAlias = "dict[str, bytes | PurePosixPath]"
"""Path -> content, or where a link leads."""

_LIMIT: Final = 1 << 22
_OS_RELEASE: Final = ("ID", "VERSION_ID", "PRETTY_NAME")
_CPUINFO: Final = re.compile(
    r"processor|vendor_id|cpu family|model( name)?|stepping|flags|address sizes|Features|CPU (implementer|architecture|"
    r"variant|part|revision)|isa|mmu|cpu|MMU|platform|facilities|Model Name|CPU Family"
)
_CONFIG_LINE: Final = re.compile(r"\s*(CONFIG_\w+=|# CONFIG_\w+ is not set|# Linux/\S+ \S+ Kernel Configuration)")
_TEXT: Final = re.compile(r'(\s*CONFIG_(?!(?:VERSION_SIGNATURE|LOCALVERSION|CC_VERSION_TEXT)=)\w+=)".*')
_MSIX_AT, _MSIX_LENGTH, _HEADER = 0x40, 12, 0x40
_NO_PATH: Final = "00000000 00:00 0"


def captured(
    tree: Tree,
    host: Host,
    drivers: Recognition,
    of_interest: Callable[[Process], bool],
    packages: Collection[str],
) -> Files:
    """Return the files of a host that was read, in the order of their paths.

    `drivers` tell their mappings and open files; `of_interest` tells processes that are kept besides those that map
    BARs; `packages`: those whose version is kept.
    """
    files: Files = {}
    for path in (RELEASE, MACHINE, THP):
        _copy(tree, path, files)
    if host.config_source:
        files[host.config_source] = _configuration(tree, host.config_source)
    _lines(tree, "/etc/os-release", files, lambda line: line.partition("=")[0] in _OS_RELEASE)
    if host.parameters or tree.kind("/proc/cmdline"):
        files["/proc/cmdline"] = (" ".join(host.parameters) + "\n").encode()
    if host.cpuinfo:
        rows = (f"{name}\t: {value}\n" for name, value in host.cpuinfo.items() if _CPUINFO.fullmatch(name))
        files["/proc/cpuinfo"] = "".join(rows).encode()
    if host.page_size:
        files[PAGE_SIZE] = f"{host.page_size}\n".encode()
    for name in host.iommus:
        files[f"/sys/class/iommu/{name}"] = PurePosixPath(f"../../devices/virtual/iommu/{name}")
    for function in host.functions:
        files |= _function(tree, function)
    try:
        versions = installed(tree, packages)
        rows = (f"Package: {n}\nStatus: install ok installed\nVersion: {v}\n\n" for n, v in versions.items())
        files[DPKG_STATUS] = "".join(rows).encode()
    except OSError:
        pass
    for process in host.processes:
        files |= _process(process, drivers, of_interest(process))
    return dict(sorted(files.items()))


def _copy(tree: Tree, path: str, files: Files) -> None:
    try:
        files[path] = tree.read(path, _LIMIT)
    except OSError:  # it is missing there as it is here
        return


def _lines(tree: Tree, path: str, files: Files, kept: Callable[[str], bool]) -> None:
    try:
        text = tree.text(path, _LIMIT)
    except OSError:
        return
    files[path] = "".join(f"{line}\n" for line in text.splitlines() if kept(line)).encode()


def _configuration(tree: Tree, path: str) -> bytes:
    """Return a kernel's configuration, whose other texts are empty; compressed where its name says so."""
    text = unpacked(tree.read(path, CONFIG_LIMIT), CONFIG_LIMIT, path).decode("utf-8", "replace")
    lines = (_TEXT.sub(r'\1""', line) for line in text.splitlines() if _CONFIG_LINE.match(line))
    content = "".join(f"{line}\n" for line in lines).encode()
    return gzip.compress(content, mtime=0) if path.endswith(".gz") else content


def _function(tree: Tree, function: PciFunction) -> Files:
    bdf = function.device.bdf
    path = f"{PCI_DEVICES}/{bdf}"
    files: Files = {}
    for name in ("resource", "vendor", "device", "class"):
        _copy(tree, f"{path}/{name}", files)
    if function.config_bytes:
        files[f"{path}/config"] = _config(tree.read(f"{path}/config", _LIMIT), function)
    if function.device.driver:
        files[f"{path}/driver"] = PurePosixPath("../../../../bus/pci/drivers") / function.device.driver
    if function.group is not None:
        files[f"{path}/iommu_group"] = PurePosixPath("../../../../kernel/iommu_groups") / str(function.group)
    for folder in tree.names(path):
        if folder.endswith("-dev") and tree.kind(f"{path}/{folder}") == "directory":
            files |= {f"{path}/{folder}/{node}/dev": b"" for node in tree.names(f"{path}/{folder}")}
    return files


def _config(config: bytes, function: PciFunction) -> bytes:
    """Return the header, behind which the MSI-X capability alone is left of all."""
    kept = bytearray(config[:_HEADER])
    msix = function.device.msix
    if function.config_bytes <= _HEADER:
        return bytes(kept)
    kept[0x06] &= ~0x10
    if msix is not None:
        kept[0x06] |= 0x10
        kept[0x34] = _MSIX_AT
        table, pba = msix.table | msix.bar, (msix.pba or 0) | (msix.pba_bar or 0)
        kept += b"\x11\x00" + (msix.vectors - 1).to_bytes(2, "little")
        kept += table.to_bytes(4, "little") + pba.to_bytes(4, "little")
    return bytes(kept.ljust(_MSIX_AT + _MSIX_LENGTH, b"\0"))


def _process(process: Process, drivers: Recognition, of_interest: bool) -> Files:
    def mapped(vma: Vma) -> bool:
        return any(True for _ in drivers.mapped(vma.path, vma.offset, lambda change: True))

    vmas = process.maps or ()
    if not of_interest and not any(mapped(vma) for vma in vmas):
        return {}
    where = f"/proc/{process.pid}"
    called = PurePosixPath(process.executable).name if process.executable else None
    status = f"Name:\t{(called or process.command)[:15]}\n"
    if process.vmpte is not None:
        status += f"VmPTE:\t{process.vmpte // 1024:8} kB\n"
    files: Files = {f"{where}/status": status.encode()}
    if called:
        elsewhere = process.executable is not None and not packaged(process.executable)
        files[f"{where}/exe"] = PurePosixPath("/opt" if elsewhere else "", called)
    if process.maps is not None:
        files[f"{where}/maps"] = "".join(_vma(vma, mapped(vma)) for vma in vmas).encode()
    for n, file in enumerate(process.files or ()):
        if drivers.held(file.link, file.fdinfo) is not None:
            files[f"{where}/fd/{n}"] = PurePosixPath(file.link)
            files[f"{where}/fdinfo/{n}"] = file.fdinfo.encode()
    return files


def _vma(vma: Vma, is_bar: bool) -> str:
    access = "rw-s" if vma.accessible else "---p"
    file = f"{vma.offset:08x} 00:00 {vma.inode} {vma.path}" if is_bar else _NO_PATH
    return f"{vma.start:08x}-{vma.end:08x} {access} {file}\n"


def write(files: Files, path: str, *, replace: bool = False) -> None:
    """Write files to a tar file, compressed where its name ends in .gz or .xz. Raises BadInput for one that is there
    and is not to be replaced, and for one that cannot be written."""
    modes = {".gz": "w:gz", ".xz": "w:xz"}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=modes.get(Path(path).suffix, "w")) as tar:  # type: ignore[call-overload]
        for member, data in _members(files):
            tar.addfile(member, data)
    write_whole(path, content.getvalue(), force=replace)


def _members(files: Files) -> Iterator[tuple[tarfile.TarInfo, io.BytesIO | None]]:
    for name, content in files.items():
        member = tarfile.TarInfo(name.lstrip("/"))
        if isinstance(content, PurePosixPath):
            member.type, member.linkname = tarfile.SYMTYPE, str(content)
            yield member, None
        else:
            member.size = len(content)
            yield member, io.BytesIO(content)
