"""Modules come unpacked and in the order in which they can be loaded."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
import zstandard

from pfnmap.errors import BadInput, Refused
from pfnmap_verify.modules import load_order, modules_directory

PACK = {"": bytes, ".xz": lzma.compress, ".gz": gzip.compress, ".zst": zstandard.compress}
NEEDS = {
    "vfio": [],
    "vfio-iommu-type1": ["vfio"],
    "irqbypass": [],
    "vfio-pci-core": ["vfio", "irqbypass"],
    "vfio-pci": ["vfio-pci-core"],
}
WANTED = ("vfio_iommu_type1", "vfio_pci")


def elf(needs: list[str]) -> bytes:
    return b"\x7fELF" + bytes(8) + b"license=GPL\0depends=" + ",".join(needs).encode() + b"\0name=x\0"


def tree(tmp_path: Path, suffix: str = "", without: tuple[str, ...] = ()) -> Path:
    folder = tmp_path / "lib/modules/6.12.1/kernel/drivers/vfio"
    folder.mkdir(parents=True)
    for name, needs in NEEDS.items():
        if name not in without:
            (folder / f"{name}.ko{suffix}").write_bytes(PACK[suffix](elf(needs)))
    return tmp_path / "lib/modules/6.12.1"


@pytest.mark.parametrize("suffix", PACK)
def test_the_order_comes_from_the_modules_where_depmod_has_not_run(tmp_path: Path, suffix: str) -> None:
    modules = load_order(tree(tmp_path, suffix), WANTED)
    assert [module.name for module in modules] == ["vfio", "vfio_iommu_type1", "irqbypass", "vfio_pci_core", "vfio_pci"]
    assert modules[0].content() == elf([])


def test_modules_dep_decides_where_it_is(tmp_path: Path) -> None:
    directory = tree(tmp_path)
    path = "kernel/drivers/vfio"
    lines = [
        f"{path}/vfio.ko:",
        f"{path}/vfio-iommu-type1.ko: {path}/vfio.ko",
        f"{path}/vfio-pci.ko: {path}/vfio-pci-core.ko {path}/irqbypass.ko {path}/vfio.ko",
        f"{path}/vfio-pci-core.ko: {path}/irqbypass.ko {path}/vfio.ko",
    ]
    (directory / "modules.dep").write_text("\n".join(lines))
    names = [module.name for module in load_order(directory, WANTED)]
    assert names == ["vfio", "vfio_iommu_type1", "irqbypass", "vfio_pci_core", "vfio_pci"]


def test_what_is_built_in_is_not_loaded(tmp_path: Path) -> None:
    directory = tree(tmp_path, without=("irqbypass",))
    (directory / "modules.builtin").write_text("kernel/virt/lib/irqbypass.ko\n")
    assert "irqbypass" not in [module.name for module in load_order(directory, WANTED)]


def test_what_is_welcome_is_loaded_where_it_is_there(tmp_path: Path) -> None:
    modules = load_order(tree(tmp_path), ("vfio_pci",), ("vfio_iommu_type1", "virtio_console"))
    assert [module.name for module in modules][-1] == "vfio_iommu_type1"


def test_a_missing_module_is_named_with_who_needs_it(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"vfio_pci_core, which vfio_pci needs, is neither in .* nor built in"):
        load_order(tree(tmp_path, without=("vfio-pci-core",)), WANTED)


def test_a_broken_module_is_named(tmp_path: Path) -> None:
    directory = tree(tmp_path, ".xz")
    path = directory / "kernel/drivers/vfio/vfio.ko.xz"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(BadInput, match=r"vfio\.ko\.xz: .*cut off"):
        load_order(directory, WANTED)


@pytest.mark.parametrize("below", ["", "lib/modules", "lib/modules/6.12.1"])
def test_the_directory_is_found_from_wherever_it_is_named(tmp_path: Path, below: str) -> None:
    directory = tree(tmp_path)
    assert modules_directory(tmp_path / below, "6.12.1") == directory
    with pytest.raises(BadInput, match=r"no modules of 6\.12\.2"):
        modules_directory(tmp_path, "6.12.2")
