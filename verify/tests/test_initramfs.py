"""The archive is what the kernel unpacks: cpio reads it back."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pfnmap_verify.initramfs import newc

FILES = {"init": b"\x7fELF" + bytes(range(256)), "modules/vfio.ko": b"x" * 4097, "empty": b""}


def test_the_same_files_give_the_same_archive() -> None:
    assert newc(FILES) == newc(dict(reversed(FILES.items())))


def test_every_part_is_aligned_and_the_trailer_is_last() -> None:
    archive = newc(FILES)
    assert len(archive) % 4 == 0
    at, names = 0, []
    while at < len(archive):
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        size, name_size = fields[6], fields[11]
        names.append(archive[at + 110 : at + 110 + name_size - 1].decode())
        at += -(-(110 + name_size) // 4) * 4
        content = archive[at : at + size]
        assert content == FILES.get(names[-1], b"")
        at += -(-size // 4) * 4
    assert names == ["dev", "modules", "dev/console", "empty", "init", "modules/vfio.ko", "TRAILER!!!"]


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_unpacks_it(tmp_path: Path) -> None:
    subprocess.run(
        ["cpio", "-idm", "--quiet", "--no-preserve-owner", "init", "modules/*"],
        input=newc(FILES),
        cwd=tmp_path,
        check=True,
    )
    assert (tmp_path / "modules/vfio.ko").read_bytes() == FILES["modules/vfio.ko"]
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
