"""The modules that vfio-pci needs, in the order in which they are loaded.

A module's needs are what modules.dep says, or, in a tree where depmod has not run (as a package brings it), what the
modules say themselves in ``depends=``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pfnmap.errors import BadInput, Refused
from pfnmap_verify.compressed import decompressed

__all__ = ["Module", "load_order", "modules_directory"]

_SUFFIX = re.compile(r"\.ko(\.(xz|gz|zst))?$")


class Module:
    """A module file: its name as the kernel writes it (underscores), and what is in it, unpacked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = _name(path.name)

    def content(self) -> bytes:
        """Return the ELF file. Raises BadInput where it cannot be read or unpacked."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise BadInput(str(self.path), error.strerror or str(error)) from None
        content = decompressed(data, str(self.path))
        if not content.startswith(b"\x7fELF"):
            raise BadInput(str(self.path), "is no kernel module")
        return content

    def needs(self) -> list[str]:
        """Return the names in the module's own ``depends=``."""
        found = re.search(rb"\0depends=([^\0]*)\0", self.content())
        return [_underscored(name) for name in found[1].decode("ascii", "replace").split(",") if name] if found else []


def _underscored(name: str) -> str:
    return name.replace("-", "_")


def _name(file: str) -> str:
    return _underscored(_SUFFIX.sub("", os.path.basename(file)))


def modules_directory(path: Path, release: str) -> Path:
    """Return the directory with the modules of a release in or below a path (itself, RELEASE, lib/modules/RELEASE,
    usr/lib/modules/RELEASE). Raises BadInput where it is none of them."""
    for candidate in (path, path / release, path / "lib/modules" / release, path / "usr/lib/modules" / release):
        if (candidate / "kernel").is_dir():
            return candidate
    raise BadInput(
        str(path), f"no modules of {release} there (a directory with kernel/ in it, as /lib/modules/{release})"
    )


def load_order(directory: Path, wanted: Iterable[str], welcome: Iterable[str] = ()) -> list[Module]:
    """Return the modules that the wanted ones (names) need, each after what it needs; what is built in is left out.

    `welcome`: what is loaded as well where it is there. Raises Refused for a wanted one that is neither there nor built
    in.
    """
    files = {
        _name(file.name): file for file in sorted((directory / "kernel").rglob("*.ko*")) if _SUFFIX.search(file.name)
    }
    built_in = {_name(line) for line in _lines(directory / "modules.builtin")}
    said = dict(_dependencies(directory / "modules.dep"))
    ordered: dict[str, Module] = {}

    def add(name: str, above: tuple[str, ...]) -> None:
        if name in ordered or name in built_in:
            return
        if name not in files:
            needed = f", which {above[-1]} needs," if above else ""
            raise Refused("modules", f"{name}{needed} is neither in {directory} nor built in")
        if name in above:
            raise BadInput(str(directory), f"module {name} depends on itself")
        module = Module(files[name])
        for below in said[name] if name in said else module.needs():
            add(below, (*above, name))
        ordered[name] = module

    for name in (*wanted, *(name for name in welcome if name in files)):
        add(_underscored(name), ())
    return list(ordered.values())


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _dependencies(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the modules of a modules.dep, each with the names of what it needs, the first to be loaded first."""
    for line in _lines(path):
        file, colon, rest = line.partition(":")
        if colon:
            yield _name(file), [_name(needed) for needed in reversed(rest.split())]
