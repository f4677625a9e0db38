"""Lay out hosts as `pfnmap host --root` reads them: made up, in the forms of a real one.

    python examples/hosts/make.py DIR

writes the tar files of this directory to DIR. A host is a dictionary: path -> content, or the target of a link.
"""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MIB, GIB = 1 << 20, 1 << 30
H200 = {0: 16 * MIB, 2: 256 * GIB, 4: 32 * MIB}
CONFIG = """\
CONFIG_64BIT=y
CONFIG_X86_64=y
CONFIG_PGTABLE_LEVELS=5
CONFIG_TRANSPARENT_HUGEPAGE=y
CONFIG_TRANSPARENT_HUGEPAGE_MADVISE=y
CONFIG_VFIO=m
CONFIG_VFIO_PCI_CORE=m
CONFIG_VFIO_PCI_MMAP=y
CONFIG_VFIO_PCI=m
"""


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


Files = dict[str, "bytes | Link"]


@dataclass(frozen=True)
class Gpu:
    """A GPU: where its BARs lie, and where a process has them (none: it has not)."""

    bdf: str
    group: int
    bars: Mapping[int, tuple[int, int]]
    """Index -> physical address and size."""
    vas: Mapping[int, int]


def gpus(place: Sequence[int], count: int = 8) -> list[Gpu]:
    """Return `count` H200s; `place`: modulo which alignment a process has BARs 0, 2 and 4, and what they are off it."""
    found = []
    for n in range(count):
        phys = {2: 0x20_0000_0000_00 + n * 0x100_0000_0000, 0: 0x10_0000_0000_00 + n * 0x1000_0000}
        phys[4] = phys[0] + 64 * MIB
        bars = {index: (phys[index], size) for index, size in H200.items()}
        base = 0x7000_0000_0000 + n * 0x80_0000_0000
        vas = {2: base + place[1], 4: base + 256 * GIB + GIB + place[2], 0: base + 257 * GIB + GIB + place[0]}
        found.append(Gpu(f"0000:{0x18 + 16 * n:02x}:00.0", 30 + n, bars, vas))
    return found


def function(gpu: Gpu) -> Files:
    """Return what sysfs has of a GPU that vfio-pci is bound to."""
    path = f"/sys/devices/pci0000:{gpu.bdf[5:7]}/{gpu.bdf}"
    rows = [(0, 0, 0)] * 7
    for index, (phys, size) in gpu.bars.items():
        rows[index] = (phys, phys + size - 1, 0x14220C)
    config = bytearray(256)
    config[0x06] = 0x10  # it has a list of capabilities
    config[0x34] = 0x40
    config[0x40:0x4C] = b"\x11\x00\x05\x00" + (0xB90000).to_bytes(4, "little") + (0xBA0000).to_bytes(4, "little")
    return {
        f"/sys/bus/pci/devices/{gpu.bdf}": Link(f"../../../devices/pci0000:{gpu.bdf[5:7]}/{gpu.bdf}"),
        f"{path}/resource": "".join(f"0x{a:016x} 0x{b:016x} 0x{c:016x}\n" for a, b, c in rows).encode(),
        f"{path}/config": bytes(config),
        f"{path}/vendor": b"0x10de\n",
        f"{path}/device": b"0x2335\n",
        f"{path}/class": b"0x030200\n",
        f"{path}/driver": Link("../../../bus/pci/drivers/vfio-pci"),
        f"{path}/iommu_group": Link(f"../../../kernel/iommu_groups/{gpu.group}"),
    }


def process(pid: int, executable: str, found: Sequence[Gpu], vmpte: int, syspath: bool = False) -> Files:
    """Return what /proc has of a VMM that maps GPUs; `vmpte` in bytes. `syspath`: fdinfo says which device it is."""
    name = executable.rpartition("/")[2][:15]
    lines = ["00400000-01000000 r-xp 00000000 08:02 131 " + executable]
    lines += ["7e0000000000-7e4000000000 rw-p 00000000 00:00 0 "]
    files: Files = {
        f"/proc/{pid}/status": f"Name:\t{name}\nVmPTE:\t{vmpte // 1024:8} kB\n".encode(),
        f"/proc/{pid}/exe": Link(executable),
        f"/proc/{pid}/fd/0": Link("/dev/null"),
        f"/proc/{pid}/fdinfo/0": b"pos:\t0\nflags:\t0100002\nmnt_id:\t25\nino:\t4\n",
        f"/proc/{pid}/fd/20": Link("/dev/vfio/vfio"),
        f"/proc/{pid}/fdinfo/20": b"pos:\t0\nflags:\t02000002\nmnt_id:\t25\nino:\t300\n",
    }
    for n, gpu in enumerate(found):
        inode, fd = 1000 + n, 30 + 2 * n
        for index, va in gpu.vas.items():
            end = va + gpu.bars[index][1]
            lines.append(f"{va:x}-{end:x} rw-s {index << 40:08x} 00:0f {inode}          anon_inode:[vfio-device]")
        said = f"pos:\t0\nflags:\t02000002\nmnt_id:\t16\nino:\t{inode}\n"
        if syspath:
            said += f"vfio-device-syspath: /sys/devices/pci0000:{gpu.bdf[5:7]}/{gpu.bdf}\n"
        files |= {
            f"/proc/{pid}/fd/{fd}": Link(f"/dev/vfio/{gpu.group}"),
            f"/proc/{pid}/fdinfo/{fd}": b"pos:\t0\nflags:\t02000002\nmnt_id:\t25\nino:\t%d\n" % (400 + n),
            f"/proc/{pid}/fd/{fd + 1}": Link("anon_inode:[vfio-device]"),
            f"/proc/{pid}/fdinfo/{fd + 1}": said.encode(),
        }
    lines.sort(key=lambda line: int(line.partition("-")[0], 16))
    return {**files, f"/proc/{pid}/maps": "".join(f"{line}\n" for line in lines).encode()}


def machine(release: str, qemu: str) -> Files:
    """Return what a host of Ubuntu has besides devices and processes."""
    return {
        "/proc/sys/kernel/osrelease": f"{release}\n".encode(),
        "/proc/sys/kernel/arch": b"x86_64\n",
        "/proc/cmdline": b"BOOT_IMAGE=/boot/vmlinuz root=UUID=0 ro intel_iommu=on iommu=pt\n",
        "/proc/cpuinfo": b"processor\t: 0\nmodel name\t: INTEL(R) XEON(R) PLATINUM 8570\n"
        b"flags\t\t: fpu nx pdpe1gb vmx pku ospke la57\n"
        b"address sizes\t: 52 bits physical, 57 bits virtual\n\n",
        "/etc/os-release": b'PRETTY_NAME="Ubuntu 24.04.2 LTS"\nID=ubuntu\n',
        f"/boot/config-{release}": CONFIG.encode(),
        "/page_size": b"4096\n",
        "/sys/kernel/mm/transparent_hugepage/enabled": b"[always] madvise never\n",
        "/sys/class/iommu/dmar0": Link("../../devices/virtual/iommu/dmar0"),
        "/var/lib/dpkg/status": (
            f"Package: qemu-system-x86\nStatus: install ok installed\nVersion: {qemu}\nDescription: x\n more\n"
        ).encode(),
    }


PLACED = {"8.2": (0x3000, 0x5000, 0x9000), "9.2": (0, 0, 0), "11.0": (0, 0, 0)}
"""Where each QEMU has BARs: before 9.2 where mmap(NULL) puts them, since 6.13 at any page (FINDINGS F7)."""
VMPTE = {"8.2": 4_307_000_000, "9.2": 3_500_000, "11.0": 3_500_000}
"""Bytes of page tables: the guest's memory is in huge pages."""
PACKAGES = {"8.2": "1:8.2.2+ds-0ubuntu1.7", "9.2": "1:9.2.1+ds-1ubuntu5", "11.0": "1:11.0.0+ds-1ubuntu1"}


def h200_host(qemu: str, release: str = "6.14.0-27-generic", syspath: bool = False, count: int = 8) -> Files:
    """Return a host with H200s, all of them with one QEMU."""
    found = gpus(PLACED[qemu], count)
    files = machine(release, PACKAGES[qemu])
    for gpu in found:
        files |= function(gpu)
    return files | process(4242, "/usr/bin/qemu-system-x86_64", found, VMPTE[qemu], syspath)


def write_tar(files: Files, path: Path) -> None:
    """Write a host as a tar file, the same bytes for the same host."""
    with tarfile.open(path, "w:xz") as tar:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name.lstrip("/"))
            if isinstance(content, Link):
                member.type, member.linkname = tarfile.SYMTYPE, content.target
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def write_directory(files: Files, root: Path) -> None:
    """Write a host as files below a directory."""
    for name, content in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            path.symlink_to(content.target)
        else:
            path.write_bytes(content)


if __name__ == "__main__":
    for version in PLACED:
        write_tar(h200_host(version), Path(sys.argv[1]) / f"h200-qemu-{version}.tar.xz")
