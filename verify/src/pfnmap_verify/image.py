"""A kernel image: which architecture and release it is of, and its configuration where it carries it (IKCONFIG).

The formats: x86's boot protocol (Documentation/arch/x86/boot.rst), arm64's Image (Documentation/arch/arm64/
booting.rst), riscv's Image (Documentation/arch/riscv/boot-image-header.rst), ELF.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pfnmap.errors import BadInput
from pfnmap_verify.compressed import decompressed, is_compressed

__all__ = ["KernelImage", "read_image"]

_LIMIT = 1 << 29
_BANNER = re.compile(rb"Linux version (\S{1,64}) ([^\n\0]{1,512})")
_DEBIAN = re.compile(r" #\d* .*\bDebian (\d+\.\d+\.\d+)-")  # its compiler, named before, is Debian's too
_UPSTREAM = re.compile(r"\d+\.\d+(\.\d+)?")
_CONFIG_START = b"IKCFG_ST"
_ELF_MACHINES = {62: "x86_64", 183: "arm64", 243: "riscv64"}


@dataclass(frozen=True)
class KernelImage:
    """A kernel image file: `arch` is the name of an architecture plugin, `banner` what follows "Linux version"."""

    path: Path
    arch: str
    banner: str
    kernel: bytes

    @property
    def uname(self) -> str:
        """What ``uname -r`` says."""
        return self.banner.split()[0]

    @property
    def release(self) -> str:
        """What `pfnmap.release.parse_release` takes: the upstream release where the banner says it (Debian's names may
        hide it: "6.1.0-56-amd64" is 6.1.192), else ``uname -r``."""
        found = _DEBIAN.search(self.banner)
        return found[1] if found else self.uname

    @cached_property
    def config(self) -> bytes | None:
        """The .config that is built in (CONFIG_IKCONFIG=y), or None."""
        at = self.kernel.find(_CONFIG_START)
        return decompressed(self.kernel[at + len(_CONFIG_START) :], f"{self.path}: IKCONFIG") if at >= 0 else None


def read_image(path: Path) -> KernelImage:
    """Read a kernel image. Raises BadInput for a file that is none of an architecture that is known here."""
    where = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT + 1)
        if len(data) > _LIMIT:
            raise BadInput(where, f"is larger than {_LIMIT} bytes, so no kernel image")
    except OSError as error:
        raise BadInput(where, error.strerror or str(error)) from None
    if data[0x202:0x206] == b"HdrS":
        return _bzimage(path, data)
    if is_compressed(data):
        data = decompressed(data, where)
    arch = _arch(data)
    if arch is None:
        raise BadInput(where, "is no kernel image (bzImage, Image, Image.gz or vmlinux of x86_64, arm64 or riscv64)")
    found = _BANNER.search(data)
    if found is None:
        raise BadInput(where, 'a kernel image without a banner ("Linux version ..."), or a truncated one')
    return KernelImage(path, arch, f"{found[1].decode()} {found[2].decode(errors='replace')}", data)


def _arch(data: bytes) -> str | None:
    if data[0x38:0x3C] == b"ARM\x64":
        return "arm64"
    if data[0x38:0x3C] == b"RSC\x05":
        return "riscv64"
    if data[:4] == b"\x7fELF" and len(data) > 20:
        return _ELF_MACHINES.get(struct.unpack_from("<H", data, 18)[0])
    return None


def _bzimage(path: Path, data: bytes) -> KernelImage:
    """x86: the banner stands in the set-up part, the kernel is its compressed payload."""
    where = str(path)
    setup_sectors, version_at = data[0x1F1] or 4, struct.unpack_from("<H", data, 0x20E)[0] + 0x200
    banner = data[version_at : version_at + 512].split(b"\0")[0].decode(errors="replace")
    if not _UPSTREAM.match(banner):
        raise BadInput(where, "an x86 boot sector without a kernel's version, so no kernel image")
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    if len(data) < start + length:
        raise BadInput(where, f"a truncated kernel image: {len(data)} bytes, where {start + length} are needed")
    payload = data[start : start + length]
    return KernelImage(path, "x86_64", banner, decompressed(payload, where) if is_compressed(payload) else payload)
