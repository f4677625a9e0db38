"""What cannot be asked is said in one line, with the exit code and how to get what is missing."""

from __future__ import annotations

import errno
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pfnmap.cli import main
from pfnmap_verify.session import Session

DATA = Path(__file__).parent / "data/core-6.12.117.json.gz"
Verify = Callable[..., tuple[int, str]]
CONFIG = "CONFIG_64BIT=y\n" + "".join(
    f"CONFIG_{symbol}=y\n"
    for symbol in ("VFIO_PCI", "VFIO_IOMMU_TYPE1", "KPROBE_EVENTS", "DEVTMPFS", "BLK_DEV_INITRD", "INTEL_IOMMU")
)


@pytest.fixture
def verify(tmp_path: Path) -> Verify:
    """Run the command; return its exit code and what it said on stderr, which is one line. QEMU is a name, no more."""
    stub = tmp_path / "bin/qemu-system-x86_64"
    stub.parent.mkdir()
    stub.write_text("#!/bin/sh\nexit 1\n")
    stub.chmod(0o755)

    def run(*arguments: object, path: str = str(stub.parent)) -> tuple[int, str]:
        command = [str(Path(sys.executable).parent / "pfnmap"), "verify", *map(str, arguments)]
        environment = {**os.environ, "PATH": path, "TMPDIR": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
        assert "Traceback" not in done.stderr
        (line,) = [line for line in done.stderr.splitlines() if not line.startswith("pfnmap: warning: ")]
        assert [*tmp_path.glob("pfnmap-verify-*")] == [], "nothing is left behind"
        return done.returncode, line

    return run


@pytest.fixture
def image(tmp_path: Path, make: SimpleNamespace) -> Path:
    path = tmp_path / "vmlinuz"
    path.write_bytes(make.bzimage(gzip.compress(b"IKCFG_ST" + gzip.compress(CONFIG.encode()))))
    return path


def test_some_kernel_has_to_be_named(verify: Verify) -> None:
    assert verify() == (2, "pfnmap: verify: one of --kernel, --deb and --rpm says which kernel")


def test_two_kernels_are_one_too_many(verify: Verify) -> None:
    code, said = verify("--kernel", "a", "--deb", "b")
    assert (code, said.endswith("not --kernel and --deb")) == (2, True)


def test_an_image_that_is_no_kernel(verify: Verify, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    code, said = verify("--kernel", tmp_path / "text")
    assert (code, "no kernel image" in said) == (2, True)


def test_a_broken_package(verify: Verify, tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(b"!<arch>\ndebian")
    code, said = verify("--deb", tmp_path / "x.deb")
    assert (code, "x.deb" in said) == (2, True)
    assert verify("--rpm", tmp_path / "x.deb") == (2, f"pfnmap: {tmp_path / 'x.deb'}: is no rpm package")


def test_an_image_of_another_architecture_than_asked_for(verify: Verify, image: Path) -> None:
    code, said = verify("--kernel", image, "--arch", "arm64")
    assert (code, "is a kernel of x86_64, not of arm64" in said) == (2, True)


def test_riscv64_has_no_iommu_in_qemu(verify: Verify, tmp_path: Path) -> None:
    data = bytes(0x38) + b"RSC\x05" + b"Linux version 6.12.1 (x) #1\n"
    (tmp_path / "Image").write_bytes(data)
    code, said = verify("--kernel", tmp_path / "Image")
    assert (code, "riscv64" in said, "IOMMU" in said) == (3, True, True)


def test_a_missing_qemu_is_named_with_its_package(verify: Verify, tmp_path: Path, make: SimpleNamespace) -> None:
    (tmp_path / "Image").write_bytes(make.arm64(b"Linux version 6.12.1 (x) #1\n"))
    code, said = verify("--kernel", tmp_path / "Image")
    assert (code, "qemu-system-aarch64 is not installed (Debian: apt-get install qemu-system-arm)" in said) == (3, True)


@pytest.mark.parametrize("symbol", ["VFIO_PCI", "KPROBE_EVENTS", "INTEL_IOMMU"])
def test_what_the_kernel_lacks_is_named(verify: Verify, image: Path, tmp_path: Path, symbol: str) -> None:
    config = tmp_path / "config"
    config.write_text(CONFIG.replace(f"CONFIG_{symbol}=y", f"# CONFIG_{symbol} is not set"))
    code, said = verify("--kernel", image, "--config", config)
    assert (code, f"CONFIG_{symbol} is not set" in said) == (3, True)


def test_ikconfig_is_looked_at_too(verify: Verify, tmp_path: Path, make: SimpleNamespace) -> None:
    config = CONFIG.replace("CONFIG_VFIO_PCI=y\n", "").encode()
    (tmp_path / "vmlinuz").write_bytes(make.bzimage(gzip.compress(b"IKCFG_ST" + gzip.compress(config))))
    code, said = verify("--kernel", tmp_path / "vmlinuz")
    assert (code, "CONFIG_VFIO_PCI is not set" in said) == (3, True)


def test_modules_of_another_kernel(verify: Verify, image: Path, tmp_path: Path, make: SimpleNamespace) -> None:
    code, said = verify("--kernel", image, "--modules", tmp_path)
    assert (code, f"no modules of {make.banner.split()[0]} there" in said) == (2, True)


def test_an_existing_recording_is_not_overwritten(verify: Verify, image: Path, tmp_path: Path) -> None:
    (tmp_path / "out.json.gz").write_bytes(b"precious")
    code, said = verify("--kernel", image, "--record", tmp_path / "out.json.gz")
    assert (code, said) == (2, f"pfnmap: {tmp_path}/out.json.gz: is there already; --force writes over it")
    assert (tmp_path / "out.json.gz").read_bytes() == b"precious"


@pytest.mark.parametrize("options", [("--random", "0"), ("--random", "-1"), ("--seed", "5")])
def test_what_says_no_program_is_bad_input(verify: Verify, image: Path, options: tuple[str, ...]) -> None:
    code, said = verify("--kernel", image, *options)
    assert (code, options[0] in said) == (2, True)


def test_an_unknown_suite_has_the_known_ones_beside_it(verify: Verify, image: Path) -> None:
    code, said = verify("--kernel", image, "--suite", "cor")
    assert (code, "unknown suite 'cor'; did you mean 'core'?" in said) == (2, True)


def test_a_qemu_that_does_not_start_is_said_so(verify: Verify, image: Path) -> None:
    code, said = verify("--kernel", image, "--json")
    assert (code, "qemu-system-x86_64 did not start: it said nothing" in said) == (3, True)


@pytest.mark.parametrize("existing", [True, False])
def test_a_full_disk_costs_the_recording_and_not_the_verdicts(
    make: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    existing: bool,
) -> None:
    def run_session(session: Session, programs: object) -> None:
        document = json.loads(gzip.decompress(DATA.read_bytes()))
        session.records[:] = document["records"][:1]
        session._described = {key: document[key] for key in ("kernel", "devices")}

    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    image, out = tmp_path / "vmlinuz", tmp_path / "out.json.gz"
    image.write_bytes(make.bzimage(b"", "6.12.117+deb12-amd64 (gcc) #1 SMP Debian 6.12.117-1 (2026-11-16)"))
    if existing:
        out.touch()
    monkeypatch.setattr("pfnmap_verify.qemu.find_qemu", lambda machine: "qemu")
    monkeypatch.setattr("pfnmap_verify.session.run_session", run_session)
    arguments = ["verify", "--kernel", image, "--config", config(tmp_path), "--record", out, "--force", "--ktap"]
    monkeypatch.setattr(sys, "argv", ["pfnmap", *map(str, arguments)])
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert said.out.splitlines() == ["KTAP version 1", "1..1", "ok 1 matrix.8G.natural"]
    assert (ended.value.code, said.err) == (3, f"pfnmap: verify: {out} cannot be written: No space left on device\n")
    assert not out.exists(), "half a recording is none"


def config(folder: Path) -> Path:
    """The configuration of a kernel of Debian's, as far as the model asks."""
    path = folder / "config"
    more = ("TRANSPARENT_HUGEPAGE", "TRANSPARENT_HUGEPAGE_ALWAYS", "MEM_SOFT_DIRTY", "PROC_FS", "X86_64", "PCI", "VFIO")
    path.write_text(CONFIG + "".join(f"CONFIG_{symbol}=y\n" for symbol in more))
    return path
