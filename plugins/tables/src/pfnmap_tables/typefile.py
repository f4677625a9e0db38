"""A file that says what a kernel's types are, for one whose memory does not: BTF, or an ELF file with BTF or DWARF."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from pfnmap.errors import BadInput
from pfnmap_tables.btf import LIMIT, MAGIC, Btf

__all__ = ["TypeFile"]

_SECTIONS: Final = 1 << 16
_NAMES: Final = 1 << 20


class TypeFile(NamedTuple):
    """`btf`: the types that a file has; None for one whose DWARF drgn is to read."""

    path: str
    btf: Btf | None

    @classmethod
    def read(cls, path: str) -> TypeFile:
        """Return what a file has. Raises BadInput for one that has neither."""
        try:
            with Path(path).open("rb") as file:
                head = file.read(64)
                if head[:2] == MAGIC.to_bytes(2, "little"):
                    return cls(path, Btf(head + file.read(LIMIT), path))
                if head[:6] != b"\x7fELF\x02\x01":
                    raise BadInput(path, "no types in it: neither BTF nor a little-endian ELF file of 64 bits")
                sections = dict(_sections(file, head, path))
                if ".BTF" in sections:
                    at, size = sections[".BTF"]
                    file.seek(at)
                    return cls(path, Btf(file.read(min(size, LIMIT)), path))
        except OSError as error:
            raise BadInput(path, f"cannot be read: {error.strerror or error}") from None
        if {".debug_info", ".zdebug_info"} & set(sections):
            return cls(path, None)
        raise BadInput(path, "no types in it: an ELF file with neither BTF (.BTF) nor DWARF (.debug_info)")


def _sections(file: BinaryIO, head: bytes, path: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the sections of an ELF file: name, and where its bytes are and how many."""
    try:
        (at,) = struct.unpack_from("<Q", head, 40)
        size, count, names = struct.unpack_from("<HHH", head, 58)
        if not at or size != 64:
            return
        file.seek(at)
        raw = file.read(size * min(count, _SECTIONS))
        rows = [struct.unpack_from("<IIQQQQ", raw, n * size) for n in range(count)]
        file.seek(rows[names][4])
        text = file.read(min(rows[names][5], _NAMES))
    except (struct.error, IndexError, OverflowError, ValueError):
        raise BadInput(path, "an ELF file whose sections cannot be read") from None
    for name, _, _, _, offset, length in rows:
        yield text[name : text.find(b"\0", name)].decode("ascii", "replace"), (offset, length)
