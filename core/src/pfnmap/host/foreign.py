"""Text that tells no BAR and no mapping, known by its lines, and the command that gives the right thing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from pfnmap.host.paste import Line

__all__ = ["VERBOSE", "what_else"]

VERBOSE: Final = "run lspci -vv (as root, for MSI-X)"
_NAMED: Final = (
    (
        re.compile(r"[0-9a-f]{2,3}: [0-9a-f]{2}(?: [0-9a-f]{2}){15}"),
        "a dump of configuration space, which has no sizes",
        VERBOSE,
    ),
    (
        re.compile(r"(?:Slot|Device):\s+(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7]"),
        "lspci -vmm, which prints no BARs",
        VERBOSE,
    ),
    (
        re.compile(r'(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7] ".*"'),
        "lspci -mm, which prints no BARs",
        VERBOSE,
    ),
    (
        re.compile(r"-\[[0-9a-f]{4}:[0-9a-f]{2}(?:-[0-9a-f]{2})?\]-.*|\+-[0-9a-f]{2}\.[0-7].*"),
        "lspci -t, which prints no BARs",
        VERBOSE,
    ),
    (
        re.compile(r"H/W path\s+Device\s+Class\s+Description|Bus info\s+Device\s+Class\s+Description"),
        "lshw -short or -businfo, which prints no ranges",
        "run lshw without either",
    ),
    (
        re.compile(r'.*"(?:businfo|handle)"\s?:\s?"(?:pci@|PCI:).*'),
        "lshw -json, which prints no ranges",
        "run lshw without -json",
    ),
    (re.compile(r'<node id=".*" .*|<resource type="\w+" value=".*" />'), "lshw -xml", "run lshw without -xml"),
    (
        re.compile(r"# Linux/\S+ \S+ Kernel Configuration|CONFIG_\w+=.*|# CONFIG_\w+ is not set"),
        "a kernel's .config",
        "give it as --config FILE",
    ),
    (
        re.compile(r"[0-9a-f]{8,16} (?:default|bind|interleave|prefer|local)\S* .*"),
        "/proc/PID/numa_maps, which has no sizes",
        "give /proc/PID/maps",
    ),
    (re.compile(r"Vm(?:PTE|Size|RSS|Peak):\s+\d+ kB"), "/proc/PID/status", "give /proc/PID/maps"),
    (re.compile(r"Linux version \d+\.\d+.*|Linux \S+ \d+\.\d+\S* .*"), "the kernel's version", "give it as --release"),
    (
        re.compile(
            r"\|\s+(?:GPU\s+Name|NVIDIA-SMI)\s.*|GPU\s+Name\s.*|NVIDIA-SMI \d.*|=+NVSMI LOG=+|GPU \d+: .* \(UUID: .*\)"
        ),
        "nvidia-smi",
        VERBOSE,
    ),
    (re.compile(r"=+ ROCm System Management Interface =+|=+ Concise Info =+"), "rocm-smi", VERBOSE),
    (
        re.compile(r"<(?:domain|hostdev|nodedev|capability) ?(?:type|mode)=.*>|<device>"),
        "libvirt's XML, which has no BARs",
        VERBOSE,
    ),
    (
        re.compile(
            r"\([a-z]+\) info \w+.*|[0-9a-f]{16}-[0-9a-f]{16} \(prio -?\d+, .*|Bus\s+\d+, device\s+\d+, function \d:.*"
        ),
        "a VMM's monitor, which tells the guest's addresses",
        "give /proc/PID/maps of the VMM",
    ),
    (
        re.compile(r".*-device \S*\bhost=(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\b.*"),
        "a VMM's command line, which has no BARs",
        f"{VERBOSE}, and give --vmm NAME-VERSION",
    ),
    (
        re.compile(
            r"[\w-]+: [\d.]+m?s: <\w+> (?:TRACE|DEBUG|INFO|WARN|ERROR):.*"
            r"|\d{4}-\d\d-\d\dT[\d:.]+ \[[^\[\]]+:[\w-]+\] .*"
        ),
        "a VMM's log, which does not tell where BARs are",
        "give /proc/PID/maps of the VMM",
    ),
    (
        re.compile(
            r"(?:\S+ )*\S*--(?:device|vfio)\S*[ =]\S*(?:/sys/bus/pci/devices/|/sys/devices/pci)\S*.*|hostpci\d+: .*"
            r"|.*\"path\": ?\"/sys/bus/pci/devices/.*|apiVersion: kubevirt\.io/.*"
        ),
        "a VMM's command line or configuration, which has no BARs",
        f"{VERBOSE}, and give --vmm NAME-VERSION",
    ),
    (
        re.compile(r"(?:\[pid +\d+\] |\d+ +)?(?:[\d:.]+ )?(?:mmap|ioctl|openat|munmap)\(.*\) = .*"),
        "strace",
        "give /proc/PID/maps of the process",
    ),
    (
        re.compile(r".*\w_(?:huge_)?fault\(,? ?order = \d+\).*"),
        "the debug lines of a fault handler",
        "give it to pfnmap log",
    ),
    (
        re.compile(r"commit [0-9a-f]{40}(?: .*)?|[\w.+-]+ \(\d\S*\) [\w -]+; urgency=\w+"),
        "a log of changes",
        "give it to pfnmap changes --log",
    ),
    (re.compile(r'\{?\s*"schema": ?"pfnmap-.*'), "an answer of pfnmap", "give it to pfnmap report --from"),
    (re.compile(r"(?:.* )?BOOT_IMAGE=\S+ .*"), "a kernel's command line", VERBOSE),
    (re.compile(r"Module +Size +Used by"), "lsmod, which has no BARs", VERBOSE),
    (
        re.compile(r"# tracer: \w+|\d+\.\d\d%  .*\[[k.]\] .*|Samples: .*of event .*"),
        "a trace or a profile of functions, which has no BARs",
        VERBOSE,
    ),
    (re.compile(r"\w+@pci\d+:\d+:\d+:\d+:\s.*"), "FreeBSD's pciconf; pfnmap knows Linux", f"on Linux {VERBOSE}"),
    (re.compile(r".*\bPCI\\VEN_[0-9A-F]{4}.*"), "a list of devices of Windows", f"on the Linux host {VERBOSE}"),
    (re.compile(r"Device-\d+: .*"), "inxi, which prints no ranges", VERBOSE),
    (
        re.compile(
            r"/sys/(?:kernel/iommu_groups|bus/pci|devices/pci)\S*"
            r"|(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7] (?:'.*' (?:drv|if)=.*|[\w-]+(?: [(\[]\*[)\]])?)"
        ),
        "a list of devices, which has no BARs",
        VERBOSE,
    ),
    (
        re.compile(r"[-dl](?:[r-][w-][xsS-]){2}[r-][w-][xtT-][.+@]?\s+\d+ \S+ \S+ +\d.*"),
        "ls -l, which has no addresses",
        "run grep . /sys/bus/pci/devices/*/resource",
    ),
    (re.compile(r"IOMMU [Gg]roup \d+:?(?: .*)?"), "a list of IOMMU groups, which has no BARs", VERBOSE),
    (re.compile(r"(?:MemTotal|MemFree):\s+\d+ kB"), "/proc/meminfo", VERBOSE),
    (re.compile(r"vendor_id\s*: \S+|CPU op-mode\(s\):.*|CPU implementer\s*: .*"), "/proc/cpuinfo or lscpu", VERBOSE),
    (re.compile(r"# dmidecode \d.*|Handle 0x[0-9A-F]{4}, DMI type \d+.*"), "dmidecode, which has no BARs", VERBOSE),
    (
        re.compile(r"(?:<\d+>)?\[ *\d+\.\d{6}\] .*|\w{3} [ \d]\d [\d:]{8} \S+ kernel: .*"),
        "a kernel's log without a line about a BAR",
        f"give it from the boot on, or {VERBOSE}",
    ),
)
"""What is no input, by its lines: the sign, its name, and what gives the right thing."""


def what_else(lines: Iterable[Line]) -> str:
    """Return what a text is and what to run instead, "" where that is not known."""
    for _, line in lines:
        for sign, name, instead in _NAMED:
            if sign.fullmatch(line):
                return f"this is {name}; {instead}"
    return ""
