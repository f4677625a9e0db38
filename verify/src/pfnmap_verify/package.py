"""A distribution's kernel packages (.deb, .rpm), unpacked as far as a boot needs them; nothing is installed or run."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from pfnmap.errors import BadInput, PfnmapError, Refused
from pfnmap_verify.compressed import LIMIT

__all__ = ["PackagedKernel", "unpack"]

_WANTED = re.compile(r"(boot/(vmlinu[xz]|config|Image)[^/]*|(usr/)?lib/modules/[^/]+/.+)")
_IMAGES = ("boot/vmlinu[xz]*", "boot/Image*", "lib/modules/*/vmlinu[xz]*", "usr/lib/modules/*/vmlinu[xz]*")
_CONFIGS = ("boot/config*", "lib/modules/*/config", "usr/lib/modules/*/config")
_MOST = 100_000
_AR_MAGIC, _AR_HEADER = b"!<arch>\n", 60
_RPM_MAGIC = b"\xed\xab\xee\xdb"


class PackagedKernel:
    """What packages brought, below a directory: the image, the configuration if there is one, and `root` with the
    modules."""

    def __init__(self, root: Path, where: str) -> None:
        self.root = root
        images = [path for pattern in _IMAGES for path in sorted(root.glob(pattern)) if path.is_file()]
        if not images:
            raise BadInput(where, "no kernel image in it (Debian: linux-image-*-unsigned; from 7.1 linux-binary-*)")
        self.image = images[0]
        configs = [path for pattern in _CONFIGS for path in sorted(root.glob(pattern)) if path.is_file()]
        self.config = configs[0] if configs else None


def unpack(packages: Sequence[str], kind: str, root: Path) -> PackagedKernel:
    """Unpack packages of a kind ("deb", "rpm") below a directory. Raises BadInput for one that is none or is cut off,
    Refused where there is no room."""
    for package in packages:
        members = _DEB_RPM[kind](package)
        try:
            for count, (name, content) in enumerate(members):
                if count > _MOST:
                    raise BadInput(package, f"more than {_MOST} files")
                _write(root, name, content)
        except (PfnmapError, MemoryError):
            raise
        except OSError as error:
            if error.errno is None or isinstance(error, FileNotFoundError):
                raise BadInput(package, f"is no {kind} package, or a broken one: {error}") from None
            raise Refused("verify", f"{package} cannot be unpacked: {error.strerror}") from None
        except Exception as error:  # each library has its own
            raise BadInput(package, f"is no {kind} package, or a broken one: {error}") from None
    return PackagedKernel(root, ", ".join(packages))


def _write(root: Path, name: str, content: IO[bytes]) -> None:
    target = root / name
    target.parent.mkdir(parents=True, exist_ok=True)
    data = content.read(LIMIT)
    target.write_bytes(data)


def _name(path: str) -> str | None:
    """Return the relative path of a member that is wanted; one that leads elsewhere is not."""
    name = path.lstrip("./")
    return name if _WANTED.fullmatch(name) and ".." not in name.split("/") else None


def _deb(package: str) -> Iterator[tuple[str, IO[bytes]]]:
    from debian.debfile import DebFile

    _check_readable(package)
    _check_whole(package)
    with DebFile(package) as deb:
        archive: tarfile.TarFile = deb.data.tgz()
        for member in archive:
            if member.isreg() and (name := _name(member.name)):
                content = archive.extractfile(member)
                assert content is not None, "a regular file"
                yield name, content


def _rpm(package: str) -> Iterator[tuple[str, IO[bytes]]]:
    import rpmfile

    _check_readable(package)
    with open(package, "rb") as file:
        if file.read(len(_RPM_MAGIC)) != _RPM_MAGIC:
            raise BadInput(package, "is no rpm package")
    with rpmfile.open(package) as rpm:
        for member in rpm.getmembers():
            if not member.isdir and (name := _name(member.name)):
                content: Any = rpm.extractfile(member)
                yield name, content


def _check_readable(package: str) -> None:
    try:
        with open(package, "rb"):
            pass
    except OSError as error:
        raise BadInput(package, error.strerror or str(error)) from None


def _check_whole(package: str) -> None:
    """Raise BadInput for an ar archive that ends within a member: an unpacker may not read as far as that."""
    with open(package, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        at = len(_AR_MAGIC)
        while at < size:
            file.seek(at)
            header = file.read(_AR_HEADER)
            if len(header) < _AR_HEADER or not header[48:58].strip().isdigit():
                raise BadInput(package, "is no deb package, or a truncated one")
            at += _AR_HEADER + int(header[48:58])
            if at > size:
                raise BadInput(package, f"a truncated package: {size} bytes, where {at} are needed")
            at += at % 2


_DEB_RPM = {"deb": _deb, "rpm": _rpm}
