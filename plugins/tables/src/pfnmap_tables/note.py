"""The VMCOREINFO note of a kernel, looked for in its memory: what says where everything else is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from drgn import Architecture, Program

from pfnmap_tables.memory import DAMAGE

__all__ = ["note_in_file", "note_in_memory"]

_NOTE: Final = re.compile(rb"VMCOREINFO\0\0(OSRELEASE=[\x20-\x7e\n]{16,65536})")
_CHUNK: Final = 4 << 20
_OVERLAP: Final = 1 << 16
_SCANNED: Final = 16 << 30
"""Bytes of a kernel's memory that are looked through."""
_RAM: Final = {Architecture.AARCH64: 1 << 30}
"""Where a guest's memory begins, if not at 0: below are devices, which a read disturbs (QEMU's machine virt)."""


def note_in_file(path: str) -> bytes | None:
    """Return the text of the note that lies somewhere in a file, None where there is none."""
    with open(path, "rb") as file:
        return _note(iter(lambda: file.read(_CHUNK), b""))


def note_in_memory(program: Program) -> bytes | None:
    """Return the text of the note that lies somewhere in physical memory, None where there is none."""
    platform = program.platform
    first = _RAM.get(platform.arch, 0) if platform else 0

    def chunks() -> Iterator[bytes]:
        for start in range(first, first + _SCANNED, _CHUNK):
            try:
                yield bytes(program.read(start, _CHUNK, physical=True))
            except DAMAGE:
                yield b""

    return _note(chunks())


def _note(chunks: Iterator[bytes]) -> bytes | None:
    """Return the text of the note, as long as its header says."""
    kept = b""
    for chunk in chunks:
        here = kept + chunk
        for found in _NOTE.finditer(here):
            start = found.start() - 12
            name, length = (int.from_bytes(here[start + n : start + n + 4], "little") for n in (0, 4))
            if start >= 0 and name == len("VMCOREINFO") + 1 and found.start(1) + length <= len(here):
                return here[found.start(1) : found.start(1) + length].rstrip(b"\0")
        kept = here[-_OVERLAP:]
    return None
