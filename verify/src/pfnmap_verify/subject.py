"""The kernel that is asked: an image, its modules and configuration, and the model that should be it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from pfnmap.errors import Refused
from pfnmap.host.dotconfig import read_dotconfig
from pfnmap.kernel import Kernel
from pfnmap.spec import KernelSpec
from pfnmap_verify.guest import boot_files
from pfnmap_verify.image import KernelImage
from pfnmap_verify.machine import Machine
from pfnmap_verify.modules import Module, load_order, modules_directory

__all__ = ["Subject", "guest_agent"]

_NEEDED = (
    ("VFIO_PCI",),
    ("VFIO_IOMMU_TYPE1", "VFIO_DEVICE_CDEV"),
    ("KPROBE_EVENTS",),
    ("DEVTMPFS",),
    ("BLK_DEV_INITRD",),
)
"""Symbols of which one each has to be set."""
_WELCOME = ("NUMA", "BUG")
"""Symbols without which some programs make no sense, or a kernel tells no WARNING."""
_RECORDED = (
    "TRANSPARENT_HUGEPAGE",
    "MEM_SOFT_DIRTY",
    "PREEMPT_RT",
    "KVM",
    "KVM_AMD",
    "ARM64_4K_PAGES",
    "ARM64_16K_PAGES",
    "ARM64_64K_PAGES",
    *(f"ARM64_VA_BITS_{bits}" for bits in (36, 39, 42, 47, 48, 52)),
)
"""Symbols that a recording takes over from the kernel's configuration."""
_AS_FOUND = {"IO_STRICT_DEVMEM": "n"}
"""What of the configuration is over before the first record: the guest maps each BAR once, which is when 6.12 requests
it and takes it from /dev/mem and sysfs."""


def guest_agent(arch: str) -> bytes:
    """Return the guest's init for an architecture. Raises Refused where this installation has none."""
    file = resources.files(__package__) / "guests" / f"init-{arch}"
    if not file.is_file():
        raise Refused("verify", f"pfnmap-verify was installed without the guest's init for {arch}")
    return file.read_bytes()


@dataclass(frozen=True)
class Subject:
    """A kernel image with its modules, ready to be booted on a machine; `spec` is what the model has to be; `unpacked`:
    the temporary directory where packages, or the image's IKCONFIG, were unpacked; `lacking`: which of NUMA and BUG its
    configuration, where there is one, has not."""

    image: KernelImage
    machine: Machine
    modules: Sequence[Module]
    spec: KernelSpec
    directory: Path | None = None
    unpacked: Path | None = None
    lacking: frozenset[str] = frozenset()

    @classmethod
    def prepare(cls, image: KernelImage, machine: Machine, modules: Path | None, spec: KernelSpec) -> Subject:
        """Find the modules and fill in what the image says of itself. Raises Refused with what the kernel lacks."""
        unset = frozenset[str]()
        if spec.config is not None:
            values = read_dotconfig(spec.config).values
            for symbols in (*_NEEDED, machine.iommu_config):
                if all(values.get(symbol, "n") == "n" for symbol in symbols):
                    lacking = " or ".join(f"CONFIG_{symbol}" for symbol in symbols)
                    raise Refused("verify", f"{image.path}: {lacking} is not set in {spec.config}")
            unset = frozenset(symbol for symbol in _WELCOME if values.get(symbol, "n") == "n")
        directory = modules_directory(modules, image.uname) if modules is not None else None
        found = load_order(directory, machine.modules, machine.welcome_modules) if directory is not None else ()
        said = replace(
            spec,
            arch=spec.arch or image.arch,
            release=spec.release or image.release,
            cpu={**machine.cpu, **spec.cpu},
            set={**_AS_FOUND, **spec.set},
        )
        return cls(image, machine, found, said, directory, lacking=unset)

    def with_kvm(self) -> Subject:
        """Return this with KVM's modules loaded too. Raises Refused where it has none for the emulated CPU."""
        if self.machine.kvm_module is None:
            raise Refused("kvm", f"the guest's init makes no virtual machines on {self.machine.arch}")
        if self.directory is None:  # built in, or the first step says that it is not
            return self
        wanted = (*self.machine.modules, self.machine.kvm_module)
        return replace(self, modules=load_order(self.directory, wanted, self.machine.welcome_modules))

    @property
    def own_spec(self) -> KernelSpec:
        """What the model is if nobody says other than the image does."""
        return KernelSpec(
            arch=self.image.arch,
            release=self.image.release,
            config=self.spec.config,
            cpu=self.machine.cpu,
            set=_AS_FOUND,
        )

    def describe(self, kernel: Kernel) -> dict[str, Any]:
        """Return what `Kernel.describe` does, the configuration named by its path in the package."""
        described = kernel.describe()
        return {**described, "config_source": described["config_source"].removeprefix(f"{self.unpacked}/")}

    def files(self) -> dict[str, bytes]:
        """Return what the initramfs holds."""
        return boot_files(guest_agent(self.image.arch), self.modules)

    def recorded(self, kernel: Kernel) -> dict[str, Any]:
        """Return the ``machine`` of a recording."""
        config = {symbol: "y" for symbol in _RECORDED if kernel.config.enabled(symbol)}
        release = self.own_spec.release
        return {"release": release, "config": config, "cpu": dict(self.machine.cpu)}

    def kernel_of_recording(self, kernel: Kernel, traced: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Return the ``kernel`` of a recording."""
        geometry = kernel.geometry
        return {
            "release": self.image.uname,
            "version": self.image.release,
            "arch": self.image.arch,
            "page_size": geometry.PAGE_SIZE,
            "pmd_size": 1 << geometry.PMD_SHIFT,
            "pud_size": 1 << geometry.PUD_SHIFT,
            "pgtable_levels": len(geometry.walk),
            "hw_access_dirty": self.machine.cpu["hw_access_dirty"],
            "pdpe1gb": self.machine.cpu.get("pdpe1gb"),
            "cmdline": self.machine.command_line,
            "boot": "default",
            "machine": f"QEMU {self.machine.description}",
            **traced,
        }
