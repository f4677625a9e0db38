"""Mutations of an input: bytes, numbers, lines and pieces of others, a few at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

__all__ = ["mutated"]

MOST = 1 << 16
NUMBERS = (b"0", b"1", b"-1", b"4095", b"4096", b"0x7fffffffffffffff", b"18446744073709551615", b"18446744073709551616")
ODD = (
    b"\0",
    b"\xff",
    b"\xfe\xff",
    "\u202e".encode(),
    b"\r",
    b"\t",
    b"\x1b[31m",
    b'"',
    b"'",
    b"\\",
    b"[",
    b"]",
    b"{",
    b"}",
)


def mutated(seeds: Sequence[bytes], words: Sequence[bytes], random: Random) -> bytes:
    """Return one of the seeds with some changes."""
    data = random.choice(seeds)
    if len(data) > MOST:
        start = random.randrange(len(data) - MOST)
        data = data[start : start + MOST]
    for _ in range(random.choice((1, 1, 2, 3, 6))):
        data = random.choice(KINDS)(data, seeds, words, random)[: 2 * MOST]
    return data


def _span(data: bytes, random: Random, longest: int = 64) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + random.randrange(longest))


def _flip(data: bytes, seeds: Sequence[bytes], words: Sequence[bytes], random: Random) -> bytes:
    if not data:
        return b"\0"
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def _delete(data: bytes, seeds: Sequence[bytes], words: Sequence[bytes], random: Random) -> bytes:
    start, end = _span(data, random)
    return data[:start] + data[end:]


def _insert(data: bytes, seeds: Sequence[bytes], words: Sequence[bytes], random: Random) -> bytes:
    start, end = _span(data, random, random.choice((1, 16)))
    return data[:start] + random.choice((*words, *ODD)) + data[end:]


def _repeat(data: bytes, seeds: Sequence[bytes], words: Sequence[bytes], random: Random) -> bytes:
    start, end = _span(data, random)
    return data[:end] + data[start:end] * random.choice((1, 2, 50)) + data[end:]


def _cut(data: bytes, seeds: Sequence[bytes], words: Sequence[bytes], random: Random) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _splice(data: bytes, seeds: Sequence[bytes], words: Sequence[bytes], random: Random) -> bytes:
    other = random.choice(seeds)
    start, end = _span(other, random, 400)
    at = random.randrange(len(data) + 1)
    return data[:at] + other[start:end] + data[at:]


def _number(data: bytes, seeds: Sequence[bytes], words: Sequence[bytes], random: Random) -> bytes:
    found = list(re.finditer(rb"(?:0x)?[0-9a-f]+", data))
    if not found:
        return data
    one = random.choice(found)
    new = random.choice((*NUMBERS, b"9" * random.choice((20, 400, 5000)), str(random.getrandbits(40)).encode()))
    return data[: one.start()] + new + data[one.end() :]


def _value(data: bytes, seeds: Sequence[bytes], words: Sequence[bytes], random: Random) -> bytes:
    """Put another kind of value where one stands: in TOML, JSON, a .config."""
    found = list(re.finditer(rb'(?<=[=:])\s*("[^"\n]*"|[\w.-]+)', data))
    if not found:
        return data
    one = random.choice(found)
    new = random.choice((b"[]", b"{}", b"true", b'"x"', b"-1", b"1.5", b'""', b"[1]", b'["a"]', *words))
    return data[: one.start()] + new + data[one.end() :]


def _lines(data: bytes, seeds: Sequence[bytes], words: Sequence[bytes], random: Random) -> bytes:
    lines = data.split(b"\n")
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    if random.random() < 0.5:
        del lines[one]
    else:
        lines.insert(other, lines[one])
    return b"\n".join(lines)


def _word(data: bytes, seeds: Sequence[bytes], words: Sequence[bytes], random: Random) -> bytes:
    """Put a word of one place into another."""
    found = list(re.finditer(rb"\w+", data))
    if len(found) < 2:
        return data
    one, other = random.sample(found, 2)
    return data[: one.start()] + other[0] + data[one.end() :]


KINDS = (_flip, _delete, _insert, _repeat, _cut, _splice, _number, _number, _value, _value, _lines, _word)
