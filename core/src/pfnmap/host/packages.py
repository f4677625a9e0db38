"""Which version of a package is installed, by the package managers' own files.

dpkg's is its status file (deb-control(5): paragraphs of "Field: value"), rpm's a database of SQLite, since 4.16 (one
that rpm 4.18 wrote was read).
"""

from __future__ import annotations

import errno
import os
import sqlite3
import struct
from collections.abc import Collection
from contextlib import closing
from itertools import count
from typing import Final

from pfnmap.host.bounded import MIB
from pfnmap.host.tree import Tree

__all__ = ["DPKG_STATUS", "RPM_DATABASES", "installed"]

DPKG_STATUS: Final = "/var/lib/dpkg/status"
RPM_DATABASES: Final = ("/usr/lib/sysimage/rpm/rpmdb.sqlite", "/var/lib/rpm/rpmdb.sqlite")
_LIMIT: Final = 64 * MIB
_RPM_LIMIT: Final = 256 * MIB
_STEPS: Final = 100
"""Thousands of SQLite's instructions that a look-up may take: a database of somebody's may hold views without end."""
_VERSION: Final = 1001
_RELEASE: Final = 1002


def installed(tree: Tree, names: Collection[str]) -> dict[str, str]:
    """Return the versions of those of some packages that are installed (rpm: ``VERSION-RELEASE``).

    Raises OSError without a file of a package manager.
    """
    for path in RPM_DATABASES:
        if tree.kind(path) == "file":
            return _of_rpm(tree.read(path, _RPM_LIMIT), names, path)
    return _of_dpkg(tree.text(DPKG_STATUS, _LIMIT), names)


def _of_dpkg(status: str, names: Collection[str]) -> dict[str, str]:
    found = {}
    for paragraph in status.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in paragraph.splitlines() if line[:1] not in ("", " ", "\t"))
        if fields.get("Package") in names and fields.get("Status", "").endswith(" installed") and "Version" in fields:
            found[fields["Package"]] = fields["Version"]
    return found


def _of_rpm(content: bytes, names: Collection[str], path: str) -> dict[str, str]:
    steps = count()
    found = {}
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            # Bytes 18 and 19 say that there is a log beside it, which there is not in memory.
            database.deserialize(content[:18] + b"\1\1" + content[20:])
            database.execute("PRAGMA trusted_schema = OFF")
            database.set_progress_handler(lambda: next(steps) >= _STEPS, 1000)
            query = "SELECT blob FROM Packages JOIN Name USING (hnum) WHERE key = ?"
            for name in names:
                for (header,) in database.execute(query, (name,)).fetchmany(8):
                    found[name] = "-".join(_tag(header, tag) for tag in (_VERSION, _RELEASE))
    except (sqlite3.Error, struct.error, TypeError, ValueError, LookupError):
        raise OSError(errno.EINVAL, "no database of rpm that can be read", path) from None
    return found


def _tag(header: bytes, wanted: int) -> str:
    """Return a text of a package's header: two lengths, an index of tag, type, offset and count, then the data."""
    entries, _ = struct.unpack_from(">II", header)
    for n in range(min(entries, len(header) // 16)):
        tag, _, offset, _ = struct.unpack_from(">IIII", header, 8 + 16 * n)
        if tag == wanted:
            start = 8 + 16 * entries + offset
            return header[start : header.index(b"\0", start)].decode("ascii")
    raise LookupError(os.strerror(errno.ENODATA))
