"""The model that a kernel image is compared with: as a recording finds its machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pfnmap.errors import Refused
from pfnmap.scenario import read_recording
from pfnmap.spec import KernelSpec
from pfnmap_verify.compare import compare
from pfnmap_verify.image import KernelImage
from pfnmap_verify.machine import machine_of
from pfnmap_verify.subject import Subject

DATA = Path(__file__).parent / "data/core-6.12.117.json.gz"
IMAGE = KernelImage(Path("vmlinuz"), "x86_64", "6.12.117+deb12-amd64 (gcc) #1 SMP Debian 6.12.117-1 (2026-11-16)", b"")
CONFIG = (
    *("64BIT", "X86_64", "X86", "MMU", "TRANSPARENT_HUGEPAGE", "TRANSPARENT_HUGEPAGE_ALWAYS", "MEM_SOFT_DIRTY"),
    *("PROC_FS", "PCI", "IOMMU_SUPPORT", "INTEL_IOMMU", "VFIO", "VFIO_GROUP", "VFIO_CONTAINER", "VFIO_IOMMU_TYPE1"),
    *("VFIO_PCI", "VFIO_PCI_CORE", "KPROBE_EVENTS", "DEVTMPFS", "BLK_DEV_INITRD", "STRICT_DEVMEM", "IO_STRICT_DEVMEM"),
)


def subject(folder: Path, *without: str, more: tuple[str, ...] = ()) -> Subject:
    config = folder / "config"
    symbols = [symbol for symbol in (*CONFIG, *more) if symbol not in without]
    config.write_text("".join(f"CONFIG_{symbol}=y\n" for symbol in symbols))
    return Subject.prepare(IMAGE, machine_of("x86_64"), None, KernelSpec(config=str(config)))


def test_bars_are_requested_before_the_first_record(tmp_path: Path) -> None:
    """With IO_STRICT_DEVMEM that takes them from user space, once, which no record shows."""
    recording = read_recording(DATA)
    first = replace(recording, records=recording.records[:1])
    asked = subject(tmp_path)
    assert [c.outcome for c in compare(asked.spec.link(), first)] == ["agree"]
    assert [c.outcome for c in compare(asked.own_spec.link(), first)] == ["agree"]


@pytest.mark.parametrize("symbol", ["VFIO_PCI", "KPROBE_EVENTS", "INTEL_IOMMU"])
def test_what_the_configuration_lacks_is_named(tmp_path: Path, symbol: str) -> None:
    with pytest.raises(Refused, match=f"CONFIG_{symbol} is not set"):
        subject(tmp_path, symbol)


def test_a_kernel_without_a_container_needs_character_devices(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="CONFIG_VFIO_IOMMU_TYPE1 or CONFIG_VFIO_DEVICE_CDEV is not set"):
        subject(tmp_path, "VFIO_IOMMU_TYPE1")
    assert subject(tmp_path, "VFIO_IOMMU_TYPE1", more=("IOMMUFD", "VFIO_DEVICE_CDEV"))


def test_an_unpacked_configuration_is_named_by_its_path_in_the_package(tmp_path: Path) -> None:
    unpacked = replace(subject(tmp_path), unpacked=tmp_path)
    assert unpacked.describe(unpacked.spec.link())["config_source"] == "config"


def test_what_some_programs_cannot_do_without_is_known(tmp_path: Path) -> None:
    assert subject(tmp_path).lacking == {"NUMA", "BUG"}
    assert subject(tmp_path, more=("NUMA", "BUG")).lacking == frozenset()


def test_a_recording_of_arm64_tells_the_width_of_its_addresses(tmp_path: Path) -> None:
    """The default of 6.1 was another than Debian's 48 bits, and would not be the CPU's."""
    config = tmp_path / "config"
    config.write_text("".join(f"CONFIG_{name}=y\n" for name in ("ARM64", "MMU", "ARM64_4K_PAGES", "ARM64_VA_BITS_48")))
    spec = KernelSpec(arch="arm64", release="6.1.192", config=str(config))
    image = KernelImage(Path("Image"), "arm64", "6.1.0-56-arm64 (gcc) #1 SMP Debian 6.1.192-2 (2026-11-16)", b"")
    asked = Subject(image, machine_of("arm64"), (), spec)
    config_of = asked.recorded(spec.link())["config"]
    assert config_of.items() >= {"ARM64_4K_PAGES": "y", "ARM64_VA_BITS_48": "y"}.items()
