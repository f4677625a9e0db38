"""The machines that QEMU emulates, one an architecture: enough for vfio-pci with an IOMMU, and no network.

The lines are those of docs/evidence/REAL-KERNEL.md, "Setup".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pfnmap.errors import Refused

__all__ = ["DEVICES", "MACHINES", "Machine", "PciTestdev", "machine_of"]

MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class PciTestdev:
    """A pci-testdev whose BAR 2 is memory of `size` bytes (a power of two)."""

    name: str
    size: int


DEVICES = tuple(
    PciTestdev(name, size)
    for name, size in (
        ("bar8G", 8 * GIB),
        ("bar2M", 2 * MIB),
        ("bar4M", 4 * MIB),
        ("bar128M", 128 * MIB),
        ("bar512M", 512 * MIB),
        ("bar1G", GIB),
        ("bar16G", 16 * GIB),
    )
)
"""What the recordings have, in their order."""


@dataclass(frozen=True)
class Machine:
    """A machine of QEMU: `arguments` without devices and kernel; `ram`: the physical address (bytes) where RAM begins;
    `cpu`: what the boot-time state of `pfnmap` has to be; `iommu_config`: the symbol of the driver of its IOMMU."""

    arch: str
    qemu: str
    package: str
    description: str
    arguments: Sequence[str]
    tty: str
    command_line: str
    ram: int
    cpu: Mapping[str, Any]
    iommu_config: Sequence[str]
    kvm_module: str | None = None
    modules: Sequence[str] = field(default=("vfio_pci",))
    welcome_modules: Sequence[str] = field(default=("vfio_iommu_type1", "iommufd", "virtio_pci", "virtio_console"))

    def physical(self, linear: int) -> int:
        """Return the physical address of an address of the kernel's linear map, whose base (x86: page_offset_base
        without KASLR; arm64: PAGE_OFFSET of the CPU's VA bits) is a multiple of far more than there is RAM."""
        return self.ram + (linear & (_LINEAR_ALIGNMENT - 1))


_LINEAR_ALIGNMENT = 1 << 36

_QUIET = "quiet panic=-1 oops=panic nokaslr norandmaps"

MACHINES: Mapping[str, Machine] = {
    "x86_64": Machine(
        arch="x86_64",
        qemu="qemu-system-x86_64",
        package="qemu-system-x86",
        description="q35, TCG, 1 CPU, 1 GiB, -cpu max,la57=off,phys-bits=46",
        arguments=(
            *("-M", "q35,kernel-irqchip=split", "-cpu", "max,la57=off,phys-bits=46"),
            *("-device", "intel-iommu,intremap=on,caching-mode=on"),
            *("-global", "q35-pcihost.pci-hole64-size=128G"),
        ),
        tty="ttyS0",
        # no_timer_check: else one boot of ten panics on a busy host
        command_line=f"console=ttyS0 no_timer_check intel_iommu=on mitigations=off {_QUIET}",
        ram=0,
        cpu={"hw_access_dirty": True, "la57": False, "pdpe1gb": True, "pti": False, "pku": True, "phys_bits": 46},
        iommu_config=("INTEL_IOMMU",),
        kvm_module="kvm_amd",  # TCG emulates AMD's SVM with nested paging
    ),
    "arm64": Machine(
        arch="arm64",
        qemu="qemu-system-aarch64",
        package="qemu-system-arm",
        description="virt (gic v3, smmuv3), TCG, 1 CPU, 1 GiB, -cpu neoverse-n1",
        arguments=("-M", "virt,highmem=on,iommu=smmuv3,gic-version=3", "-cpu", "neoverse-n1"),
        tty="ttyAMA0",
        command_line=f"console=ttyAMA0 {_QUIET}",
        ram=GIB,
        cpu={"hw_access_dirty": True, "va_bits": 48, "lpa2": False},
        iommu_config=("ARM_SMMU_V3",),
    ),
}


def machine_of(arch: str) -> Machine:
    """Return the machine of an architecture. Raises Refused where QEMU has none with an IOMMU that vfio can use."""
    if arch not in MACHINES:
        why = "QEMU's machines for it have no IOMMU" if arch == "riscv64" else "no machine is known for it"
        raise Refused("verify", f"{arch}: {why}; possible are {', '.join(MACHINES)}")
    return MACHINES[arch]
