"""Kernel images made by hand."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest

BANNER = "6.1.0-56-amd64 (debian-kernel@lists.debian.org) #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)"


def bzimage(payload: bytes, banner: str = BANNER) -> bytes:
    """An x86 image: boot sector and set-up with the banner, then the payload."""
    head = bytearray(5 * 512)
    head[0x1F1] = 4
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x20E, 0x400 - 0x200)
    head[0x400 : 0x400 + len(banner) + 1] = banner.encode() + b"\0"
    struct.pack_into("<II", head, 0x248, 16, len(payload))
    return bytes(head) + bytes(16) + payload


def arm64(content: bytes) -> bytes:
    return bytes(0x38) + b"ARM\x64" + bytes(4) + content


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Return what makes images: `bzimage(payload, banner)`, `arm64(content)`, and the `banner` that is the default."""
    return SimpleNamespace(bzimage=bzimage, arm64=arm64, banner=BANNER)
