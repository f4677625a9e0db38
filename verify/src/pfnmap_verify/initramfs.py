"""An initramfs: a cpio archive in the format "newc" (the kernel's Documentation/driver-api/early-userspace/
buffer-format.rst), which the kernel unpacks into its root."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["newc"]

_DIRECTORY, _FILE, _CHARACTER_DEVICE = 0o040000, 0o100000, 0o020000
_CONSOLE = (5, 1)


def newc(files: Mapping[str, bytes]) -> bytes:
    """Return an archive with these files (path without a leading slash -> content), all executable, with the
    directories that they need and /dev/console. The same files give the same bytes."""
    directories = sorted({"dev", *(parent for path in files for parent in _parents(path))})
    members = [_member(n, path, _DIRECTORY | 0o755) for n, path in enumerate(directories, 1)]
    members.append(_member(len(members) + 1, "dev/console", _CHARACTER_DEVICE | 0o600, device=_CONSOLE))
    for path, content in sorted(files.items()):
        members.append(_member(len(members) + 1, path, _FILE | 0o755, content))
    members.append(_member(0, "TRAILER!!!", 0))
    return b"".join(members)


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def _member(inode: int, path: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    name = path.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device of the file, device that it is, length of the name, checksum
    numbers = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + name
    return _padded(head) + _padded(content)


def _padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % 4)
