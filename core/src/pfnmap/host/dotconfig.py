"""A real kernel's ``.config`` (``/boot/config-*``, ``/proc/config.gz``), plain or compressed, or a part of one, as it
is or as posted: with what grep puts in front of its lines, quoted, in a fence, below the command that printed it.

What a kernel's build wrote has every symbol that is set, also those that nobody can set. Files that distributions keep
in their sources, defconfigs and excerpts do not: there a symbol that is missing says nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pfnmap.errors import BadInput
from pfnmap.host.bounded import MIB, read_text

__all__ = ["DotConfig", "parse_dotconfig", "read_dotconfig"]

LIMIT = 8 * MIB
"""The most that is read of a file, in bytes once decompressed; a full one has a third of a MiB."""

_HEADER = re.compile(r"# Linux/([\w.-]+) ([\w.+~-]+) Kernel Configuration")
_OLD_HEADER = re.compile(r"# Linux kernel version: ([\w.+~-]+)")
"""Up to 2.6.38."""
_DIST_GIT_HEADER = re.compile(r"# (\w+)")
"""What Fedora's and RHEL's sources have for a first line."""
_SET = re.compile(r"CONFIG_(\w+)=(.*)")
_NOT_SET = re.compile(r"# CONFIG_(\w+) is not set")
_IN_FRONT = re.compile(
    r"(?:> ?){0,9}(?:(?:[^\s:]{0,255}/)?(?:config-)?([^\s:/]{1,255}):)?(?:\d{1,6}[:-])?(?=(?:# )?CONFIG_\w)"
)
"""Quote marks, and what grep puts in front of a line: the file (``/boot/config-6.12.43+deb13-amd64``), its number."""
_PASSED = re.compile(r"```\w*|\$ .*|\S+@\S+[#$] .*")
"""What may stand around it: a fence, a command behind its prompt."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*[mK]")


@dataclass(frozen=True)
class DotConfig:
    """What a ``.config`` says.

    `values`: symbols without CONFIG_; "y", "m", "n" (written "is not set"), or a number or string as text; a symbol
    that is not in the file had no value, or, where the file is not `complete`, is not known. `arch` and `release`: from
    the first lines ("x86", "6.12.117"), "" where they do not say.
    """

    values: Mapping[str, str]
    arch: str = ""
    release: str = ""

    @property
    def arch_names(self) -> tuple[str, ...]:
        """What a plugin for this architecture may be called: the header's name, and that name with 64 bits."""
        if not self.arch:
            return ()
        if self.release and self.values.get("64BIT") != "y":
            return (self.arch,)
        return (self.arch, f"{self.arch}_64", f"{self.arch}64")

    @property
    def release_names(self) -> tuple[str, ...]:
        """What it calls its kernel, the most telling first: Ubuntu's signature, the first lines' release with what a
        distribution appends to it, that release alone."""
        named = (self.values.get("VERSION_SIGNATURE", ""), self.release + self.values.get("LOCALVERSION", ""))
        return tuple(dict.fromkeys(name for name in (*named, self.release) if name)) if self.release else ()

    @property
    def complete(self) -> bool:
        """Whether the build of a kernel wrote it, since 4.18 with the compiler's name: then what is missing is not
        set."""
        return "CC_VERSION_TEXT" in self.values


def read_dotconfig(path: str | os.PathLike[str]) -> DotConfig:
    """Read a ``.config``, plain or compressed. Raises BadInput for a file that is not one."""
    return parse_dotconfig(read_text(path, LIMIT), str(path))


def parse_dotconfig(text: str, where: str = ".config") -> DotConfig:
    """Parse the text of a ``.config``; `where` names it in errors. The last of several lines for a symbol counts."""
    values: dict[str, str] = {}
    arch = release = ""
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = _COLOUR.sub("", raw).strip()
        if (front := _IN_FRONT.match(line)) and front.end():
            release = release or (front[1] or "") * (f"config-{front[1]}:" in front[0])
            line = line[front.end() :]
        if match := _SET.fullmatch(line):
            values[match[1]] = _unquoted(match[2])
        elif match := _NOT_SET.fullmatch(line):
            values[match[1]] = "n"
        elif not line or line.startswith("#"):
            if not release and (match := _HEADER.fullmatch(line)):
                arch, release = match[1], match[2]
            elif not release and (match := _OLD_HEADER.fullmatch(line)):
                release = match[1]
            elif number == 1 and (match := _DIST_GIT_HEADER.fullmatch(line)):
                arch = match[1]
        elif not _PASSED.fullmatch(line):
            shown = line if len(line) <= 40 else f"{line[:40]}..."
            raise BadInput(f"{where}, line {number}", f"{shown!r} is not a line of a .config (CONFIG_NAME=value)")
    if not values:
        raise BadInput(where, "no CONFIG_ line, a .config was expected")
    return DotConfig(values, arch, release)


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value
