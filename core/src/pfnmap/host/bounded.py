"""Reading files of other people's machines, with a bound on what is read.

Plain, gzip, xz or zstd is told by the first bytes, not by the name. A limit counts decompressed bytes; memory stays
within a small multiple of it whatever the file expands to. Every failure is a `BadInput` that names the file.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import tomli

from pfnmap.errors import BadInput

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "MIB",
    "opened",
    "parse_toml",
    "read_bytes",
    "read_json",
    "read_text",
    "read_toml",
    "source_name",
    "uncompressed",
    "unpacked",
]

MIB = 1 << 20
_WAIT = 10
"""Seconds for which a named pipe may stay without a writer."""
_VALUES = 1 << 19
"""Values in a JSON document, of which each takes about a hundred bytes; the largest recordings have a fifth of that."""
_TABLES = 1 << 18
"""Tables and lists in a TOML document, of which each takes some hundred bytes."""
_NUMBER = re.compile("[0-9A-Fa-f_]{10001,}")
_IN_A_ROW = 10_000
"""Digits that TOML is parsed with, so that its reader says where they are: tomli takes a hundred bytes for each."""
_DIGITS = 300
_BITS = 1000
"""Digits and bits of a number that is read: Python writes none of thousands of digits, not into a message either."""
_XZ_MEMORY = 128 * MIB
"""What an xz decoder may take for its dictionary; `xz -9` needs 65 MiB."""
_ZSTD_WINDOW = 128 * MIB
"""The largest window of a zstd frame; `zstd --ultra -22` has this one."""
_ZSTD_HEADER = 18
"""The most bytes of a frame's header."""
_PIECE = 1 << 16
"""Bytes that are unpacked at a time."""


def read_bytes(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return the content of a file, decompressed where it is gzip, xz or zstd, of at most `limit` bytes; "-" is
    standard input.

    Raises BadInput for a file that is missing, a directory, unreadable, larger than the limit (before or
    after decompression), damaged, or zstd where the extra ``zst`` is not installed.
    """
    where = source_name(path)
    with opened(path) as file:
        if str(path) != "-" and os.fstat(file.fileno()).st_size > limit:  # not read at all
            raise _too_large(where, limit)
        raw = file.read(limit + 1)
    return unpacked(raw, limit, where)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file to read its bytes; "-" is standard input.

    Raises BadInput for a file that is missing, a directory, or unreadable, also while it is read, and for a named pipe
    that nobody writes to for a while.
    """
    where = source_name(path)
    try:
        if str(path) == "-":
            if sys.stdin is None:
                raise BadInput(where, "closed")
            yield sys.stdin.buffer
        else:
            # What a shell makes of <(command) has a writer, and no name that resolves.
            with _named_pipe(path, where) if Path(path).resolve().is_fifo() else Path(path).open("rb") as file:
                yield file
    except FileNotFoundError:
        raise BadInput(where, "no such file") from None
    except IsADirectoryError:
        raise BadInput(where, "a directory, a file was expected") from None
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: symbolic links in a circle
        raise BadInput(where, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _named_pipe(path: str | os.PathLike[str], where: str) -> BinaryIO:
    import select

    pipe = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    waiting = select.poll()
    waiting.register(pipe, select.POLLIN)
    if not waiting.poll(1000 * _WAIT):
        pipe.close()
        raise BadInput(where, f"a pipe that nobody wrote to for {_WAIT} s")
    os.set_blocking(pipe.fileno(), True)
    return pipe


def uncompressed(stream: BinaryIO, limit: int, where: str) -> BinaryIO:
    """Return a stream as it is, or, where it is gzip, xz or zstd, one of its content, unpacked while it is read and of
    at most `limit` bytes; `where` names it. Raises BadInput as `read_bytes` does, then or while it is read."""
    peek = getattr(stream, "peek", None)
    if peek is not None:
        for magic, (kind, unpack) in _PACKED.items():
            if peek(8).startswith(magic):
                return io.BufferedReader(_Unpacked(unpack(stream), limit, where, kind), _PIECE)
    return stream


def unpacked(raw: bytes, limit: int, where: str) -> bytes:
    """Return the content of a file that was read, decompressed where it is gzip, xz or zstd; `where` names it.

    Raises BadInput as `read_bytes` does.
    """
    if len(raw) > limit:
        raise _too_large(where, limit)
    if not raw.startswith(tuple(_PACKED)):
        return raw
    return uncompressed(io.BufferedReader(io.BytesIO(raw)), limit, where).read(limit + 1)


class _Unpacked(io.RawIOBase):
    """The content of a compressed file, given in pieces."""

    def __init__(self, pieces: Iterator[bytes], limit: int, where: str, kind: str) -> None:
        self._pieces, self._limit, self._where, self._kind = pieces, limit, where, kind
        self._piece = memoryview(b"")
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        room = memoryview(buffer).cast("B")
        while not self._piece and (piece := self._next()) is not None:
            self._piece = memoryview(piece)
            self._count += len(piece)
            if self._count > self._limit:
                raise _too_large(self._where, self._limit)
        count = min(len(room), len(self._piece))
        room[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    def _next(self) -> bytes | None:
        try:
            return next(self._pieces, None)
        except EOFError:
            raise BadInput(self._where, f"truncated {self._kind} file") from None
        except ImportError:
            what = f"{self._kind}-compressed; pip install 'pfnmap[zst]', or decompress it first"
            raise BadInput(self._where, what) from None
        except (OSError, zlib.error, ValueError) as error:
            raise BadInput(self._where, f"damaged {self._kind} file: {error}") from None


def _gunzip(stream: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=stream) as content:
        while piece := content.read(_PIECE):
            yield piece


def _unxz(stream: BinaryIO) -> Iterator[bytes]:
    import lzma

    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)
    while not decoder.eof:
        raw = stream.read(_PIECE) if decoder.needs_input else b""
        if decoder.needs_input and not raw:
            raise EOFError
        try:
            yield decoder.decompress(raw, _PIECE)
        except lzma.LZMAError as error:
            raise ValueError(error) from None


def _unzstd(stream: BinaryIO) -> Iterator[bytes]:
    import zstandard

    decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    try:
        left = zstandard.frame_content_size(stream.peek(_ZSTD_HEADER))  # type: ignore[attr-defined]
        with decoder.stream_reader(stream, closefd=False) as content:  # type: ignore[call-arg, unused-ignore]
            while piece := content.read(_PIECE):
                left -= len(piece)
                yield piece
    except zstandard.ZstdError as error:
        raise ValueError(error) from None
    if left > 0:  # a frame that does not say how long it is begins with -1
        raise EOFError


_PACKED: Mapping[bytes, tuple[str, Callable[[BinaryIO], Iterator[bytes]]]] = {
    b"\x1f\x8b": ("gzip", _gunzip),
    b"\xfd7zXZ\x00": ("xz", _unxz),
    b"\x28\xb5\x2f\xfd": ("zstd", _unzstd),
}
"""The first bytes of a compressed file -> what it is, and what unpacks it."""


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
    if sum(map(text.count, ",[{")) > _VALUES:  # before any of them takes memory; text with commas counts as well
        raise BadInput(source_name(path), f"more than {_VALUES} values, which is the most that is read")
    try:
        return json.loads(text, parse_int=_whole)
    except json.JSONDecodeError as error:
        what = f"not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        raise BadInput(source_name(path), what) from None
    except RecursionError:
        raise BadInput(source_name(path), "JSON nested too deeply") from None
    except ValueError as error:
        raise BadInput(source_name(path), str(error)) from None


def read_toml(path: str | os.PathLike[str], limit: int, checked: str = "") -> dict[str, Any]:
    """Return the document in a TOML file (plain or compressed) of at most `limit` bytes, as `parse_toml` does."""
    return parse_toml(read_text(path, limit), source_name(path), checked)


def parse_toml(text: str, source: str, checked: str = "") -> dict[str, Any]:
    """Return the document in a text. Raises BadInput for other text. `checked`: the key below which the reader checks
    numbers itself, and says better where they are."""
    for what, count, most in (
        ("values", sum(map(text.count, ",={")), _VALUES),
        ("tables and lists", text.count("["), _TABLES),
        ("digits in a row", len(max(_NUMBER.findall(text), key=len, default="")), _IN_A_ROW),
    ):
        if count > most:  # before any of them takes memory, as in JSON
            raise BadInput(source, f"more than {most} {what}, which is the most that is read")
    try:
        document = tomli.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(source, f"not TOML: {error}") from None
    try:
        _check_numbers({key: value for key, value in document.items() if key != checked})
    except ValueError as error:
        raise BadInput(source, str(error)) from None
    return document


def _whole(digits: str) -> int:
    """Return a whole number of JSON. What it has to fit into, its reader knows; none needs hundreds of digits."""
    if len(digits) > _DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _check_numbers(document: Any) -> None:
    """Check the same of what TOML gave."""
    todo = [document]
    while todo:
        value = todo.pop()
        if isinstance(value, (dict, list)):
            todo += value.values() if isinstance(value, dict) else value
        elif isinstance(value, int) and value.bit_length() > _BITS:
            raise ValueError(f"a number of {value.bit_length()} bits")


def _size(count: int) -> str:
    return f"{count // MIB} MiB" if count >= MIB and count % MIB == 0 else f"{count} bytes"
