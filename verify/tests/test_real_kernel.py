"""Debian's newest kernel, or PFNMAP_KERNEL_DEBS (paths, separated by colons), does what the model says."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.realkernel
PFNMAP = Path(sys.executable).parent / "pfnmap"
KERNEL = re.compile(r"linux-image-(\d+)\.(\d+)\.(\d+)(?:-(\d+)|\+deb\d+)?-amd64(?:-unsigned)?")
PART_OF_KERNEL = re.compile(r"linux-(image|binary|modules|base)-\d.*")


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the packages of a kernel, as options of the command."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed (Debian: apt-get install qemu-system-x86)")
    if "PFNMAP_KERNEL_DEBS" in os.environ:
        found = os.environ["PFNMAP_KERNEL_DEBS"].split(os.pathsep)
    else:
        if shutil.which("apt-cache") is None:
            pytest.skip("there is no apt to find a kernel package by; PFNMAP_KERNEL_DEBS names one")
        names = newest(apt_cache("pkgnames", "linux-image-").split())
        if not names:
            pytest.skip("apt knows no kernel package (linux-image-VERSION-amd64); apt-get update may not have been run")
        folder = tmp_path_factory.mktemp("debs")
        got = subprocess.run(
            ["apt-get", "download", names[0], *sorted(parts(names[0]))],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if got.returncode:
            pytest.skip(f"apt-get download {names[0]}: {got.stderr.strip().splitlines()[-1]}")
        found = [str(path) for path in sorted(folder.glob("*.deb"))]
    return [part for path in found for part in ("--deb", path)]


def apt_cache(*arguments: str) -> str:
    return subprocess.run(["apt-cache", *arguments], capture_output=True, text=True, check=False).stdout


def newest(names: list[str]) -> list[str]:
    """Return those of the packages that hold an amd64 kernel, the newest first."""
    kernels = {name: [int(part or 0) for part in found.groups()] for name in names if (found := KERNEL.fullmatch(name))}
    return sorted(kernels, key=lambda name: kernels[name], reverse=True)


def parts(name: str) -> set[str]:
    """Return the packages that hold the other parts of a kernel, from 7.1 on."""
    needed = {
        name for name in re.findall(r"Depends: (\S+)", apt_cache("depends", name)) if PART_OF_KERNEL.fullmatch(name)
    }
    return needed.union(*(parts(other) for other in needed))


def verify(*arguments: str) -> list[str]:
    return [str(PFNMAP), "verify", *arguments]


@pytest.fixture
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After the test no file of verify's and no QEMU of its is there."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield
    assert [*tmp_path.glob("pfnmap-verify-*")] == []
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
    assert not [command for command in commands if str(tmp_path).encode() in command and b"qemu-system" in command]


@pytest.mark.usefixtures("nothing_left")
def test_the_core_suite_agrees_and_what_is_recorded_replays(debs: list[str], tmp_path: Path) -> None:
    recording = tmp_path / "core.json.gz"
    done = subprocess.run(
        verify(*debs, "--suite", "core", "--record", str(recording), "--json"),
        capture_output=True,
        text=True,
        check=False,
    )
    document = json.loads(done.stdout)
    assert {key: document[key] for key in ("disagree", "oops", "lost", "refused")} == {
        "disagree": [],
        "oops": [],
        "lost": [],
        "refused": [],
    }
    assert (done.returncode, document["agree"]) == (0, document["records"])
    assert document["records"] >= 60
    replayed = subprocess.run([PFNMAP, "replay", str(recording)], check=False)
    assert replayed.returncode == 0


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("number", "seconds", "ctrl_c"),
    [
        (signal.SIGINT, 0, signal.SIG_DFL),
        (signal.SIGTERM, 5, signal.SIG_IGN),  # a job of a shell
        (signal.SIGINT, 25, signal.SIG_DFL),
    ],
)
def test_an_interrupt_leaves_nothing_behind(
    debs: list[str], tmp_path: Path, number: int, seconds: int, ctrl_c: signal.Handlers
) -> None:
    process = subprocess.Popen(
        verify(*debs, "--suite", "full"),  # which is far from done by then
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, ctrl_c),
    )
    while process.poll() is None and not [*tmp_path.glob("pfnmap-verify-*")]:
        time.sleep(0.1)
    time.sleep(seconds)  # while it unpacks, boots, runs
    process.send_signal(number)
    try:
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Traceback" not in said
    assert process.returncode == 130
