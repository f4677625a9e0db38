"""Kernel images are told by their headers, and what is none is said so in one line."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pfnmap.errors import BadInput
from pfnmap_verify.image import read_image

Build = Callable[[SimpleNamespace], bytes]
CONFIG = b"CONFIG_64BIT=y\nCONFIG_VFIO_PCI=m\n"


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "image"
    path.write_bytes(data)
    return path


def test_a_bzimage_says_its_release_in_the_banner(tmp_path: Path, make: SimpleNamespace) -> None:
    image = read_image(written(tmp_path, make.bzimage(gzip.compress(b"vmlinux"))))
    assert (image.arch, image.uname, image.release) == ("x86_64", "6.1.0-56-amd64", "6.1.192")
    assert image.config is None


def test_ikconfig_is_found_in_the_payload(tmp_path: Path, make: SimpleNamespace) -> None:
    kernel = b"text" + b"IKCFG_ST" + gzip.compress(CONFIG) + b"IKCFG_ED"
    assert read_image(written(tmp_path, make.bzimage(gzip.compress(kernel)))).config == CONFIG


@pytest.mark.parametrize("packed", [False, True])
def test_an_arm64_image_is_read_plain_and_packed(tmp_path: Path, make: SimpleNamespace, packed: bool) -> None:
    data = make.arm64(
        b"\0Linux version 6.12.117+deb12-arm64 (x) (gcc-12 (Debian 12.2.0-14) 12.2.0) #1 SMP Debian 6.12.117-1\n\0"
    )
    image = read_image(written(tmp_path, gzip.compress(data) if packed else data))
    assert (image.arch, image.uname, image.release) == ("arm64", "6.12.117+deb12-arm64", "6.12.117")


def test_debians_release_is_read_from_a_banner_without_the_number_of_its_build(
    tmp_path: Path, make: SimpleNamespace
) -> None:
    """Debian's Image for arm64 has two banners, and the first is such a one."""
    data = make.arm64(
        b"\0Linux version 6.1.0-56-arm64 (x) (gcc-12 (Debian 12.2.0-14) 12.2.0) # SMP Debian 6.1.192-2\n\0"
    )
    assert read_image(written(tmp_path, data)).release == "6.1.192"


def test_another_distributions_release_is_its_uname(tmp_path: Path, make: SimpleNamespace) -> None:
    image = read_image(written(tmp_path, make.bzimage(b"", "6.8.0-40-generic (buildd@x) #40-Ubuntu SMP")))
    assert image.release == "6.8.0-40-generic"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (lambda make: b"", "no kernel image"),
        (lambda make: b"#!/bin/sh\n", "no kernel image"),
        (lambda make: make.bzimage(b"x" * 100)[:-1], "truncated"),
        (lambda make: make.bzimage(gzip.compress(bytes(10_000))[:-8]), "cut off"),
        (lambda make: make.bzimage(b"", "not a version"), "no kernel image"),
        (lambda make: make.arm64(b"nothing"), "without a banner"),
        (lambda make: gzip.compress(b"x" * 1000)[:20], "cut off"),
    ],
)
def test_what_is_no_kernel_is_said_so(tmp_path: Path, make: SimpleNamespace, data: Build, what: str) -> None:
    with pytest.raises(BadInput, match=what) as raised:
        read_image(written(tmp_path, data(make)))
    assert str(tmp_path / "image") in str(raised.value)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        read_image(tmp_path / "none")


def test_a_device_without_an_end_is_no_kernel_image(monkeypatch):
    monkeypatch.setattr("pfnmap_verify.image._LIMIT", 1 << 16)
    with pytest.raises(BadInput, match="/dev/zero: is larger than 65536 bytes"):
        read_image(Path("/dev/zero"))
