"""A machine's files, read only: a live root, a directory that was captured of one, or a tar file.

Paths are absolute within the tree. Symbolic links are followed inside it and never lead out, whatever they say; what is
neither a file, a directory nor a link (a device node, a pipe) is not opened. A tar file is read as it is, nothing of it
is unpacked.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import tarfile
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pfnmap.errors import BadInput
from pfnmap.host.bounded import MIB, read_bytes

__all__ = ["Directory", "Kind", "TarFile", "Tree", "open_tree"]

Kind: TypeAlias = Literal["file", "directory", "link", "other"]

_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LINKS: Final = 40
"""Symbolic links that are followed on the way to one file (MAXSYMLINKS)."""
_NAMES: Final = 1 << 17
"""Names in a directory, and members and directories of a tar file."""
_DEPTH: Final = 64
"""Names in a path of a member: nothing that is read lies nearly as deep."""
TAR_LIMIT: Final = 192 * MIB
"""Bytes of a tar file, once decompressed."""

Parts: TypeAlias = tuple[str, ...]


class Tree(ABC):
    """Files by absolute path. What is not there, or not to be read, raises OSError, as the system's own calls do."""

    name: str
    """What errors call it."""

    def read(self, path: str, limit: int) -> bytes:
        """Return the content of a file, at most `limit` bytes: OSError (EFBIG) for a larger one."""
        where = self._resolved(path)
        self._expect(where, "file", errno.EISDIR if self._kind(where) == "directory" else errno.EINVAL)
        content = self._content(where, limit + 1)
        if len(content) > limit:
            raise _error(errno.EFBIG, path)
        return content

    def text(self, path: str, limit: int) -> str:
        """Return the content of a text file; what is no UTF-8 becomes U+FFFD, as what a terminal would obey does."""
        return _CONTROL.sub("\ufffd", self.read(path, limit).decode("utf-8", "replace"))

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a directory."""
        where = self._resolved(path)
        self._expect(where, "directory", errno.ENOTDIR)
        return sorted(self._children(where))

    def link(self, path: str) -> str:
        """Return what a symbolic link says, as `text` does."""
        where = self._resolved(path, last=False)
        self._expect(where, "link", errno.EINVAL)
        return _CONTROL.sub("\ufffd", self._target(where))

    def resolved(self, path: str) -> str:
        """Return the path of a file without links."""
        return "/" + "/".join(self._resolved(path))

    def kind(self, path: str) -> Kind | None:
        """Tell what is at a path, a link followed; None for nothing, and for what cannot be looked at."""
        try:
            return self._kind(self._resolved(path))
        except OSError:
            return None

    def _expect(self, where: Parts, kind: Kind, number: int) -> None:
        found = self._kind(where)
        if found != kind:
            raise _error(number if found else errno.ENOENT, "/" + "/".join(where))

    def _resolved(self, path: str, last: bool = True) -> Parts:
        """Follow the links on the way to a path, and with `last` the one that it names itself."""
        todo = deque(path.split("/"))
        done: list[str] = []
        followed = 0
        while todo:
            part = todo.popleft()
            if part in ("", "."):
                continue
            if part == "..":
                del done[-1:]
                continue
            done.append(part)
            if (todo or last) and self._kind(tuple(done)) == "link":
                followed += 1
                if followed > _LINKS:
                    raise _error(errno.ELOOP, path)
                target = self._target(tuple(done))
                done = [] if target.startswith("/") else done[:-1]
                todo.extendleft(reversed(target.split("/")))
        return tuple(done)

    @abstractmethod
    def _kind(self, where: Parts) -> Kind | None: ...

    @abstractmethod
    def _target(self, where: Parts) -> str: ...

    @abstractmethod
    def _children(self, where: Parts) -> Iterable[str]: ...

    @abstractmethod
    def _content(self, where: Parts, count: int) -> bytes: ...


class Directory(Tree):
    """The files below a directory: "/" is the running machine."""

    def __init__(self, root: str | os.PathLike[str] = "/") -> None:
        self.root = os.fspath(root)
        self.name = "this machine" if self.live else self.root

    @property
    def live(self) -> bool:
        """Whether it is the running machine."""
        return self.root == "/"

    def _path(self, where: Parts) -> str:
        return os.path.join(self.root, *where)

    def _kind(self, where: Parts) -> Kind | None:
        try:
            mode = os.lstat(self._path(where)).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:  # a NUL in it
            return None
        kinds: tuple[tuple[bool, Kind], ...] = (
            (stat.S_ISREG(mode), "file"),
            (stat.S_ISDIR(mode), "directory"),
            (stat.S_ISLNK(mode), "link"),
        )
        return next((kind for found, kind in kinds if found), "other")

    def _target(self, where: Parts) -> str:
        return os.readlink(self._path(where))

    def _children(self, where: Parts) -> Iterable[str]:
        with os.scandir(self._path(where)) as entries:
            return [entry.name for _, entry in zip(range(_NAMES), entries, strict=False)]

    def _content(self, where: Parts, count: int) -> bytes:
        # What was a file may be something else by now: it is not waited for, and looked at once more.
        handle = os.open(self._path(where), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(handle, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise _error(errno.EINVAL, self._path(where))
            parts, left = [], count
            while left and (part := file.read(min(left, MIB))):
                parts.append(part)
                left -= len(part)
        return b"".join(parts)


class TarFile(Tree):
    """The members of a tar file, plain or compressed."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Read it. Raises BadInput for a file that cannot be read, or is no tar file."""
        self.name = os.fspath(path)
        self._data = read_bytes(path, TAR_LIMIT)
        self._links: dict[Parts, str] = {}
        self._files: dict[Parts, tuple[int, int]] = {}
        self._other: set[Parts] = set()
        self._below: dict[Parts, dict[str, None]] = {(): {}}
        try:
            with tarfile.open(fileobj=io.BytesIO(self._data), mode="r:", errorlevel=1) as tar:
                for count, member in enumerate(iter(tar.next, None)):
                    if count >= _NAMES:
                        raise BadInput(self.name, f"more than {_NAMES} members, which is the most that is read")
                    self._add(member)
                    tar.members.clear()  # type: ignore[attr-defined]  # it keeps all that it saw
                    if len(self._below) > _NAMES:
                        raise BadInput(self.name, f"more than {_NAMES} directories, which is the most that is read")
        except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
            raise BadInput(self.name, f"not a tar file that can be read: {error}") from None

    def _add(self, member: tarfile.TarInfo) -> None:
        parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
        if not parts or ".." in parts or len(parts) > _DEPTH:
            return
        for depth in range(len(parts)):
            self._below.setdefault(parts[:depth], {})[parts[depth]] = None
        for kind in (self._links, self._files, self._other, self._below):  # the last of one name counts
            if not (kind is self._below and member.isdir()):
                kind.pop(parts, None) if isinstance(kind, dict) else kind.discard(parts)
        if member.issym():
            self._links[parts] = member.linkname
        elif member.isdir():
            self._below.setdefault(parts, {})
        elif member.isreg() and not member.issparse():
            self._files[parts] = member.offset_data, member.size
        else:  # a device node, a pipe, a hard link, a file with holes that may be of any size
            self._other.add(parts)

    def _kind(self, where: Parts) -> Kind | None:
        if where in self._links:
            return "link"
        if where in self._files:
            return "file"
        if where in self._below:
            return "directory"
        return "other" if where in self._other else None

    def _target(self, where: Parts) -> str:
        return self._links[where]

    def _children(self, where: Parts) -> Iterable[str]:
        return self._below[where]

    def _content(self, where: Parts, count: int) -> bytes:
        start, size = self._files[where]
        return self._data[start : start + min(size, count)]


def open_tree(path: str | os.PathLike[str]) -> Tree:
    """Return the files of a captured host: a directory, or a tar file. Raises BadInput where there is neither."""
    if Path(path).is_dir():
        return Directory(Path(path).resolve())
    return TarFile(path)


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
