"""pfnmap.host.bounded: what is read is bounded, and whatever is wrong is one BadInput that names the file."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest
import zstandard

from pfnmap.errors import BadInput
from pfnmap.host import bounded
from pfnmap.host.bounded import MIB, read_bytes, read_json, read_text, read_toml


def _file(directory: Path, content: bytes, name: str = "input") -> Path:
    path = directory / name
    path.write_bytes(content)
    return path


def _refusal(path: Path, limit: int = MIB, reader=read_bytes) -> str:
    with pytest.raises(BadInput) as caught:
        reader(path, limit)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_plain_and_gzip_are_told_by_content_not_by_name(tmp_path):
    assert read_bytes(_file(tmp_path, b"text", "a.gz"), 10) == b"text"
    assert read_bytes(_file(tmp_path, gzip.compress(b"text"), "b"), 100) == b"text"


def test_gzip_members_are_joined(tmp_path):
    assert read_text(_file(tmp_path, gzip.compress(b"one ") + gzip.compress(b"two")), 100) == "one two"


def test_a_file_of_exactly_the_limit_is_read_and_one_byte_more_is_not(tmp_path):
    path = _file(tmp_path, b"x" * 100)
    assert len(read_bytes(path, 100)) == 100
    assert "larger than 99 bytes" in _refusal(path, 99)


def test_missing_file_and_directory(tmp_path):
    assert "no such file" in _refusal(tmp_path / "nothing")
    assert "a directory" in _refusal(tmp_path)


def test_a_name_that_no_file_can_have():
    with pytest.raises(BadInput, match="cannot be read"):
        read_bytes("a\0b", 10)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_file(tmp_path):
    path = _file(tmp_path, b"x")
    path.chmod(0)
    assert "cannot be read" in _refusal(path)


def test_truncated_and_damaged_gzip(tmp_path):
    whole = gzip.compress(os.urandom(5000))
    assert "truncated gzip" in _refusal(_file(tmp_path, whole[:2000]))
    assert "damaged gzip" in _refusal(_file(tmp_path, whole[:2000] + b"garbage" + whole[2007:]))
    assert "damaged gzip" in _refusal(_file(tmp_path, whole + b"not a member"))


def test_a_gzip_bomb_is_refused_in_bounded_memory(tmp_path):
    # Members of 16 MiB of zeros each: about 1 MiB of file for 1 GiB of content.
    path = _file(tmp_path, gzip.compress(bytes(16 * MIB)) * 64)
    assert path.stat().st_size < 2 * MIB
    tracemalloc.start()
    try:
        assert "larger than 4 MiB" in _refusal(path, 4 * MIB)
        assert tracemalloc.get_traced_memory()[1] < 32 * MIB
    finally:
        tracemalloc.stop()


def test_a_gigabyte_of_zeros_is_refused_in_bounded_memory(tmp_path):
    path = tmp_path / "zeros"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    tracemalloc.start()
    try:
        assert "larger than 4 MiB" in _refusal(path, 4 * MIB, read_json)
        assert tracemalloc.get_traced_memory()[1] < 32 * MIB
    finally:
        tracemalloc.stop()


def test_binary_is_no_text(tmp_path):
    assert "binary" in _refusal(_file(tmp_path, b"ab\0c"), reader=read_text)
    assert "byte 0xff at offset 1" in _refusal(_file(tmp_path, b"a\xff"), reader=read_text)


def test_json_says_where_it_breaks(tmp_path):
    assert read_json(_file(tmp_path, b'{"a": [1]}'), 100) == {"a": [1]}
    assert "line 2 column 1" in _refusal(_file(tmp_path, b'{"a":\n}'), reader=read_json)


def test_json_nesting_and_number_length_are_bounded(tmp_path):
    assert "nested too deeply" in _refusal(_file(tmp_path, b"[" * 200_000), reader=read_json)
    assert "digits" in _refusal(_file(tmp_path, b"9" * 100_000), reader=read_json)


@pytest.mark.parametrize(("kind", "pack", "header"), [("xz", lzma.compress, 8), ("zstd", zstandard.compress, 4)])
def test_xz_and_zstd_are_unpacked_within_the_limit(tmp_path, kind, pack, header):
    text = b"CONFIG_A=y\n" * 1000
    assert read_bytes(_file(tmp_path, pack(text)), len(text)) == text
    assert "larger than" in _refusal(_file(tmp_path, pack(text)), len(text) - 1)
    noise = os.urandom(10_000)
    assert f"truncated {kind} file" in _refusal(_file(tmp_path, pack(noise)[:-100]))
    damaged = bytearray(pack(noise))
    damaged[header] ^= 0xFF
    assert f"damaged {kind} file" in _refusal(_file(tmp_path, bytes(damaged)))


@pytest.mark.parametrize("pack", [lzma.compress, zstandard.compress])
def test_a_bomb_of_another_kind_takes_little_memory(tmp_path, pack):
    path = _file(tmp_path, pack(bytes(64 * MIB)))
    tracemalloc.start()
    try:
        assert "larger than" in _refusal(path, MIB)
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()


def test_zstd_without_its_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert "pip install 'pfnmap[zst]'" in _refusal(_file(tmp_path, zstandard.compress(b"text")))


@pytest.mark.parametrize("document", ["[%s0]" % ("[]," * 400_000), "[%s{}]" % ('{"":0},' * 300_000)])
def test_json_of_too_many_values_is_refused_before_they_take_memory(tmp_path, document):
    path = _file(tmp_path, gzip.compress(document.encode()))
    tracemalloc.start()
    try:
        assert "more than 524288 values" in _refusal(path, 4 * MIB, read_json)
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()


def test_a_named_pipe_is_read_and_one_without_a_writer_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded, "_WAIT", 0)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert "nobody wrote to" in _refusal(path)
    monkeypatch.setattr(bounded, "_WAIT", 10)
    writer = threading.Thread(target=path.write_bytes, args=(b"text" * 50_000,))
    writer.start()
    assert read_bytes(path, MIB) == b"text" * 50_000
    writer.join()


def test_standard_input_that_is_closed_and_links_in_a_circle_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(BadInput, match=r"^standard input: closed$"):
        read_bytes("-", MIB)
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "cannot be read" in _refusal(tmp_path / "a")


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 5000, "1" * 302])
def test_a_number_of_hundreds_of_digits_is_none_of_a_document(tmp_path, number):
    assert "digits" in _refusal(_file(tmp_path, f'[{{"a": {number}}}]'.encode()), reader=read_json)
    said = _refusal(_file(tmp_path, f"a = [{{b = {number}}}]".encode()), reader=read_toml)
    assert "digits" in said or "bits" in said
    assert "a number of 1004 bits" in _refusal(_file(tmp_path, b"a = 0x" + b"f" * 251), reader=read_toml)
    assert read_toml(_file(tmp_path, b"a = 0xffffffffffffffffff"), MIB) == {"a": (1 << 72) - 1}


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstandard.compress])
def test_a_stream_is_unpacked_while_it_is_read(pack):
    text = (b"Linux 6.12" * 100 + b"\n") * (32 * MIB // 1001)
    stream = io.BufferedReader(io.BytesIO(pack(text)))
    tracemalloc.start()
    try:
        content = bounded.uncompressed(stream, len(text), "a log")
        assert sum(len(line) for line in content) == len(text)
        assert tracemalloc.get_traced_memory()[1] < 12 * MIB  # xz has a dictionary of 8 MiB
    finally:
        tracemalloc.stop()
    stream.seek(0)
    with pytest.raises(BadInput, match="a log: larger than"):
        list(bounded.uncompressed(stream, len(text) - 1, "a log"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "9" * 100_000, "more than 10000 digits in a row"),
        ("[[a]]\n" * 200_000, "more than 262144 tables and lists"),
        ("a = [" + "{}," * 400_000 + "]", "more than 524288 values"),
    ],
)
def test_toml_that_would_take_much_memory_is_refused_before_it_is_parsed(tmp_path, monkeypatch, text, said):
    monkeypatch.setattr(bounded.tomli, "loads", None)
    assert said in _refusal(_file(tmp_path, text.encode()), 4 * MIB, read_toml)
