"""Packages are unpacked as far as a boot needs them, and broken ones are named."""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import tarfile
from pathlib import Path

import pytest

from pfnmap.errors import BadInput
from pfnmap_verify.initramfs import newc
from pfnmap_verify.package import unpack

FILES = {
    "./boot/vmlinuz-6.12.1": b"image",
    "./boot/config-6.12.1": b"CONFIG_VFIO_PCI=m\n",
    "./lib/modules/6.12.1/kernel/drivers/vfio/vfio.ko.xz": b"module",
    "./usr/share/doc/copyright": b"not wanted",
    "./boot/../../etc/passwd": b"leads elsewhere",
}


def deb(files: dict[str, bytes]) -> bytes:
    """A binary package: an ar archive of version, control and data."""
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": tar({"./control": b"Package: x\n"}),
        "data.tar.xz": tar(files),
    }
    archive = b"!<arch>\n"
    for name, data in members.items():
        archive += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
        )
    return archive


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return lzma.compress(buffer.getvalue())


def test_a_deb_gives_image_configuration_and_modules(tmp_path: Path) -> None:
    package = tmp_path / "linux.deb"
    package.write_bytes(deb(FILES))
    root = tmp_path / "root"
    found = unpack([str(package)], "deb", root)
    assert found.image == root / "boot/vmlinuz-6.12.1"
    assert found.config == root / "boot/config-6.12.1"
    written = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    assert written == ["boot/config-6.12.1", "boot/vmlinuz-6.12.1", "lib/modules/6.12.1/kernel/drivers/vfio/vfio.ko.xz"]


def test_the_parts_of_a_kernel_may_come_in_several_packages(tmp_path: Path) -> None:
    parts = {"binary": "usr/lib/modules/7.3.4/vmlinuz", "base": "usr/lib/modules/7.3.4/config"}
    for name, path in parts.items():
        (tmp_path / name).write_bytes(deb({f"./{path}": b"x"}))
    found = unpack([str(tmp_path / name) for name in parts], "deb", tmp_path / "root")
    assert (found.image.name, found.config and found.config.name) == ("vmlinuz", "config")


def rpm(files: dict[str, bytes]) -> bytes:
    """A package: lead, an empty signature, a header that names the compressor, and a cpio archive in gzip."""
    tags = {1124: b"cpio\0", 1125: b"gzip\0"}  # RPMTAG_PAYLOADFORMAT, RPMTAG_PAYLOADCOMPRESSOR
    store = b"".join(tags.values())
    index, at = b"", 0
    for tag, text in tags.items():
        index += struct.pack(">IIII", tag, 6, at, 1)
        at += len(text)
    magic = b"\x8e\xad\xe8\x01\0\0\0\0"
    lead = struct.pack(">4sBBhh66shh16x", b"\xed\xab\xee\xdb", 3, 0, 0, 1, b"kernel", 1, 5)
    header = magic + struct.pack(">II", len(tags), len(store)) + index + store
    return lead + magic + bytes(8) + header + gzip.compress(newc(files))


def test_an_rpm_gives_the_same(tmp_path: Path) -> None:
    package = tmp_path / "kernel-core.rpm"
    modules = "lib/modules/6.12.1-200.fc41.x86_64"
    files = {f"./{modules}/vmlinuz": b"image", f"./{modules}/config": b"CONFIG_VFIO_PCI=m\n", "./etc/x": b"not wanted"}
    package.write_bytes(rpm(files))
    root = tmp_path / "root"
    found = unpack([str(package)], "rpm", root)
    assert found.image == root / modules / "vmlinuz"
    assert found.config == root / modules / "config"
    assert not (root / "etc").exists()


@pytest.mark.parametrize("kind", ["deb", "rpm"])
@pytest.mark.parametrize("data", [b"", b"no package at all", deb(FILES)[:300], deb(FILES)[:-40]])
def test_a_broken_package_is_named(tmp_path: Path, kind: str, data: bytes) -> None:
    package = tmp_path / "linux.package"
    package.write_bytes(data)
    with pytest.raises(BadInput, match=r"linux\.package"):
        unpack([str(package)], kind, tmp_path / "root")


def test_a_package_without_a_kernel_is_said_so(tmp_path: Path) -> None:
    package = tmp_path / "linux-modules.deb"
    package.write_bytes(deb({"./lib/modules/6.12.1/kernel/x.ko": b""}))
    with pytest.raises(BadInput, match="no kernel image in it"):
        unpack([str(package)], "deb", tmp_path / "root")
