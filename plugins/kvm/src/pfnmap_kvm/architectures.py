"""Which architecture's KVM there is."""

from __future__ import annotations

from collections.abc import Mapping

from pfnmap import LinkedKernel, Refused

from .arm64 import Arm64Mmu
from .loongarch import LoongarchMmu
from .mmu import GuestMmu
from .powerpc import PowerpcMmu
from .riscv import RiscvMmu
from .s390 import S390Mmu
from .x86 import X86Mmu

__all__ = ["guest_mmu"]

_ARCHITECTURES: Mapping[str, type[GuestMmu]] = {
    "x86_64": X86Mmu,
    "arm64": Arm64Mmu,
    "loongarch64": LoongarchMmu,
    "riscv64": RiscvMmu,
    "powerpc64": PowerpcMmu,
    "s390": S390Mmu,
}


def guest_mmu(kernel: LinkedKernel) -> type[GuestMmu]:
    """Return what this kernel's KVM does. Raises Refused for an architecture, or an MMU of it, that is not modelled."""
    name = kernel.arch.name
    if name not in _ARCHITECTURES:
        raise Refused("kvm", f"{name} is not modelled; {', '.join(_ARCHITECTURES)} are")
    if kernel.cpu.get("mmu") == "hash":
        raise Refused("kvm", f"{name} with the hash MMU is not modelled; with the radix MMU it is")
    if name == "s390" and not kernel.has("s390-kvm-new-gmap"):
        raise Refused("kvm", f"{name}'s guests share the page tables of the process before s390-kvm-new-gmap")
    return _ARCHITECTURES[name]
