"""What stands at the end of each command's help and in its manual page: examples that the tests run."""

from __future__ import annotations

from typing import Final

__all__ = ["EXAMPLES", "epilog"]

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "plan": (
        "pfnmap plan --bar 128G@0x84000000000 --vmm qemu-9.2 --release 6.14 --advise",
        "pfnmap plan examples/lspci/h100.txt --vmm qemu-8.2 --against vmm=qemu-9.2 --map",
        "pfnmap plan --bar 8G --config examples/configs/config-6.12.117+deb12-amd64.gz --kvm",
    ),
    "run": (
        "pfnmap run examples/scenarios/split-2m-from-1g.toml --dump",
        "pfnmap run examples/scenarios/mprotect-page-oops.toml --trace",
    ),
    "replay": ("pfnmap replay tests/data/recordings/arm64-16k-6.12.117-n1.json.gz",),
    "caps": ("pfnmap caps arm64 --release 6.12.117", "pfnmap caps x86_64 arm64 riscv64"),
    "kconfig": ("pfnmap kconfig x86_64 --explain ARCH_SUPPORTS_PUD_PFNMAP",),
    "changes": ("pfnmap changes 6.12.94 6.12.117", "pfnmap changes 6.12.117"),
    "check": ("pfnmap check pci_sysfs", "pfnmap check x86_64 --vectors plugins/x86_64/tests/data/x86_64-4k.json.gz"),
    "plugins": ("pfnmap plugins",),
    "new": ("pfnmap new arch sketch", "pfnmap new driver sketch_bar"),
    "vmm": ("pfnmap vmm cloud-hypervisor-53", "pfnmap vmm"),
    "host": ("pfnmap host --root examples/hosts/h200-qemu-9.2.tar.xz",),
}


def epilog(command: str) -> str | None:
    """Return the examples of a command as its help shows them, None where it has none."""
    found = EXAMPLES.get(command)
    return "\n\n".join(["Examples:", *(f"  {line}" for line in found)]) if found else None
