"""Reading files of other people's machines, with a bound on what is read.

Plain, gzip, xz or zstd is told by the first bytes, not by the name. A limit counts decompressed bytes; memory stays
within a small multiple of it whatever the file expands to. Every failure is a `BadInput` that names the file.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pfnmap.errors import BadInput

__all__ = ["MIB", "read_bytes", "read_json", "read_text", "source_name", "unpacked"]

MIB = 1 << 20
_XZ_MEMORY = 128 * MIB
"""What an xz decoder may take for its dictionary; `xz -9` needs 65 MiB."""
_ZSTD_WINDOW = 128 * MIB
"""The largest window of a zstd frame; `zstd --ultra -22` has this one."""


def read_bytes(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return the content of a file, decompressed where it is gzip, xz or zstd, of at most `limit` bytes; "-" is
    standard input.

    Raises BadInput for a file that is missing, a directory, unreadable, larger than the limit (before or
    after decompression), damaged, or zstd where the extra ``zst`` is not installed.
    """
    where = source_name(path)
    try:
        if str(path) == "-":
            raw = sys.stdin.buffer.read(limit + 1)
        else:
            with Path(path).open("rb") as file:
                if os.fstat(file.fileno()).st_size > limit:  # not read at all
                    raise _too_large(where, limit)
                raw = file.read(limit + 1)
    except FileNotFoundError:
        raise BadInput(where, "no such file") from None
    except IsADirectoryError:
        raise BadInput(where, "a directory, a file was expected") from None
    except (OSError, ValueError) as error:
        raise BadInput(where, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return unpacked(raw, limit, where)


def unpacked(raw: bytes, limit: int, where: str) -> bytes:
    """Return the content of a file that was read, decompressed where it is gzip, xz or zstd; `where` names it.

    Raises BadInput as `read_bytes` does.
    """
    if len(raw) <= limit:
        for magic, (kind, unpack) in _PACKED.items():
            if raw.startswith(magic):
                raw = _unpacked(raw, limit, where, kind, unpack)
                break
    if len(raw) > limit:
        raise _too_large(where, limit)
    return raw


def _unpacked(raw: bytes, limit: int, where: str, kind: str, unpack: Callable[[bytes, int], bytes]) -> bytes:
    try:
        return unpack(raw, limit + 1)
    except EOFError:
        raise BadInput(where, f"truncated {kind} file") from None
    except ImportError:
        raise BadInput(where, f"{kind}-compressed; pip install 'pfnmap[zst]', or decompress it first") from None
    except (OSError, zlib.error, ValueError) as error:
        raise BadInput(where, f"damaged {kind} file: {error}") from None


def _gunzip(raw: bytes, count: int) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as unpacked:
        return unpacked.read(count)


def _unxz(raw: bytes, count: int) -> bytes:
    import lzma

    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)
    try:
        unpacked = decoder.decompress(raw, count)
    except lzma.LZMAError as error:
        raise ValueError(error) from None
    if len(unpacked) < count and not decoder.eof:
        raise EOFError
    return unpacked


def _unzstd(raw: bytes, count: int) -> bytes:
    import zstandard

    decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    try:
        whole = zstandard.frame_content_size(raw)  # -1 where the frame does not say
        with decoder.stream_reader(raw) as stream:
            unpacked = stream.read(count)
    except zstandard.ZstdError as error:
        raise ValueError(error) from None
    if len(unpacked) < min(count, whole):
        raise EOFError
    return unpacked


_PACKED: Mapping[bytes, tuple[str, Callable[[bytes, int], bytes]]] = {
    b"\x1f\x8b": ("gzip", _gunzip),
    b"\xfd7zXZ\x00": ("xz", _unxz),
    b"\x28\xb5\x2f\xfd": ("zstd", _unzstd),
}
"""The first bytes of a compressed file -> what it is, and how at most so many bytes of it are unpacked."""


def source_name(path: str | os.PathLike[str]) -> str:
    """Return what errors call a file: its path, or "standard input"."""
    return "standard input" if str(path) == "-" else str(path)


def _too_large(where: str, limit: int) -> BadInput:
    return BadInput(where, f"larger than {_size(limit)}, which is the most that is read")


def read_text(path: str | os.PathLike[str], limit: int) -> str:
    """Return a UTF-8 text file (plain or compressed) of at most `limit` bytes; BadInput for binary content."""
    raw = read_bytes(path, limit)
    if b"\0" in raw:
        raise BadInput(source_name(path), f"binary (a NUL byte at offset {raw.index(0)}), text was expected")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"not UTF-8 text (byte 0x{raw[error.start]:02x} at offset {error.start})"
        raise BadInput(source_name(path), what) from None


def read_json(path: str | os.PathLike[str], limit: int) -> Any:
    """Return the document in a JSON file (plain or compressed) of at most `limit` bytes; BadInput for other text."""
    text = read_text(path, limit)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        what = f"not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        raise BadInput(source_name(path), what) from None
    except RecursionError:
        raise BadInput(source_name(path), "JSON nested too deeply") from None
    except ValueError as error:  # an integer of thousands of digits
        raise BadInput(source_name(path), f"not JSON that can be read: {error}") from None


def _size(count: int) -> str:
    return f"{count // MIB} MiB" if count >= MIB and count % MIB == 0 else f"{count} bytes"
