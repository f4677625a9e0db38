"""What kernels, modules and packages are compressed with, told by its first bytes and bounded in what comes out."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

from pfnmap.errors import BadInput

__all__ = ["LIMIT", "decompressed", "is_compressed"]

LIMIT = 1 << 30
"""Bytes: more than any kernel, module or package."""


def _zstd() -> Any:
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


_FORMATS: tuple[tuple[bytes, Callable[[], Any]], ...] = (
    (b"\x1f\x8b", lambda: zlib.decompressobj(wbits=31)),
    (b"\xfd7zXZ\0", lzma.LZMADecompressor),
    (b"\x28\xb5\x2f\xfd", _zstd),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\x5d\0\0", lzma.LZMADecompressor),
)


def is_compressed(data: bytes) -> bool:
    """Return whether data begins as something that `decompressed` unpacks."""
    return any(data.startswith(magic) for magic, _ in _FORMATS)


def decompressed(data: bytes, where: str) -> bytes:
    """Return what was compressed (gzip, xz, lzma, zstd, bzip2), or the data itself where it is not.

    What follows the compressed part is ignored. Raises BadInput for a stream that is cut or broken, or over `LIMIT`.
    """
    opened = next((opened for magic, opened in _FORMATS if data.startswith(magic)), None)
    if opened is None:
        return data
    stream, parts, size, view = opened(), [], 0, memoryview(data)
    for start in range(0, len(view), 1 << 20):
        try:
            parts.append(stream.decompress(view[start : start + (1 << 20)]))
        except Exception as error:  # each library has its own
            raise BadInput(where, f"does not unpack: {error}") from None
        size += len(parts[-1])
        if size > LIMIT:
            raise BadInput(where, f"unpacks to more than {LIMIT} bytes")
        if stream.eof:
            return b"".join(parts)
    raise BadInput(where, "is cut off")
