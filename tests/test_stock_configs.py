"""Configurations that distributions ship, as they are: Debian's linux-config packages and Ubuntu's linux-buildinfo."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from pfnmap.spec import KernelSpec

DATA = Path(__file__).parent / "data" / "configs"
STOCK = {
    "debian-6.1.176-powerpc64le": ("powerpc64", "6.1.176", 65536, "always"),
    "debian-6.1.176-s390x": ("s390", "6.1.176", 4096, "always"),
    "debian-6.12.95-powerpc64le-64k": ("powerpc64", "6.12.95", 65536, "always"),
    "debian-6.12.95-s390x": ("s390", "6.12.95", 4096, "always"),
    "debian-6.12.117-riscv64": ("riscv64", "6.12.117", 4096, "always"),
    "debian-7.2.13-amd64": ("x86_64", "7.2.13", 4096, "always"),
    "debian-7.2.13-arm64-16k": ("arm64", "7.2.13", 16384, "always"),
    "debian-7.2.13-powerpc64le": ("powerpc64", "7.2.13", 4096, "always"),
    "debian-7.2.13-riscv64": ("riscv64", "7.2.13", 4096, "always"),
    "debian-7.2.13-s390x": ("s390", "7.2.13", 4096, "always"),
    "ubuntu-6.8.0-151-generic": ("x86_64", "6.8.0-151-generic", 4096, "madvise"),
    "ubuntu-6.11.0-1016-nvidia": ("x86_64", "6.11.0-1016-nvidia", 4096, "madvise"),
    "ubuntu-6.14.0-37-generic": ("x86_64", "6.14.0-37-generic", 4096, "madvise"),
    "ubuntu-6.17.0-42-generic": ("x86_64", "6.17.0-42-generic", 4096, "madvise"),
    "ubuntu-7.0.0-44-generic": ("x86_64", "7.0.0-44-generic", 4096, "madvise"),
}


def test_every_file_is_asked_about():
    assert {path.name.removesuffix(".xz") for path in DATA.iterdir()} == set(STOCK)


@pytest.mark.parametrize("name", STOCK)
def test_a_stock_configuration_says_what_its_kernel_is_and_contradicts_nothing(name: str):
    said: list[str] = []
    kernel = KernelSpec(config=str(DATA / f"{name}.xz")).link(warn=said.append)
    assert (kernel.arch.name, kernel.release.name, kernel.geometry.PAGE_SIZE, kernel.thp) == STOCK[name]
    assert kernel.config.conflicts == ()
    # Debian's 6.1 of s390 has no vfio-pci; nothing else is to be said.
    assert all("has no vfio_pci" in text for text in said)


def test_a_configuration_of_no_release_is_not_blamed_alone(tmp_path: Path):
    path = tmp_path / "config"
    text = lzma.decompress((DATA / "debian-7.2.13-arm64-16k.xz").read_bytes()).decode()
    path.write_text(text.replace(" 7.2.13 Kernel Configuration", ""))
    said: list[str] = []
    kernel = KernelSpec(config=str(path)).link(warn=said.append)
    assert (kernel.arch.name, kernel.geometry.PAGE_SIZE, kernel.thp) == ("arm64", 16384, "always")
    taken = "nothing says its release, and 7.3.4 is taken: give --release"
    assert said == [f"{path}: ARCH_HAS_PMD_SOFTLEAVES=n where y follows; {taken}"]
    assert not kernel_warnings(path, "7.2.13")


def kernel_warnings(path: Path, release: str) -> list[str]:
    said: list[str] = []
    KernelSpec(config=str(path), release=release).link(warn=said.append)
    return said


def test_ubuntu_s_configuration_names_the_stable_release_and_the_rest_is_unknown():
    kernel = KernelSpec(config=str(DATA / "ubuntu-6.14.0-37-generic.xz")).link()
    changes = kernel.release.changes
    assert changes["vfio-align-fault-to-order"] == "yes"  # 6.14.7
    assert changes["pud-insert-cachemode"] == "unknown"
    assert any("6.14.0-37-generic is built on 6.14.11" in sentence for sentence in kernel.assumed)
