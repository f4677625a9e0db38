"""Acrn: the module and its scenario action."""

from __future__ import annotations

from collections.abc import Mapping
from errno import errorcode
from typing import Any, ClassVar

from pfnmap import Action, BadInput, Machine, Module, Refused, ScenarioRun

from .mm import AcrnVm

__all__ = ["Acrn"]


class Acrn(Module):
    """The Hypervisor Service Module of a Service VM, with one User VM."""

    name: ClassVar[str] = "acrn"
    provides: ClassVar[tuple[str, ...]] = ("acrn_vm_ram_map",)
    consumes: ClassVar[tuple[str, ...]] = ("follow_pfnmap", "follow_pte", "mmap_lock", "pfn_valid")

    def boot(self, machine: Machine) -> None:
        """Start over with nothing mapped."""
        super().boot(machine)
        self._vm = AcrnVm(machine, [])

    def actions(self) -> Mapping[str, Action]:
        """What scenarios may do with ACRN."""
        arguments = {"gpa": "address", "va": "address", "length": "size", "access": "str"}
        return {"ram_map": Action(self._ram_map, arguments)}

    def _ram_map(self, run: ScenarioRun, gpa: int, va: int, length: int, access: str) -> dict[str, Any]:
        """ACRN_IOCTL_SET_MEMSEG with type ACRN_MEMMAP_RAM; `access`: letters of rwx.

        Gives `regions`, all that the hypervisor was told by then.
        """
        if self.kernel.arch.name != "x86_64":
            raise Refused("acrn.ram_map", f"ACRN runs on x86_64, this kernel is {self.kernel.arch.name}")
        if not set(access) <= set("rwx"):
            raise BadInput("acrn.ram_map", f"access {access!r} has letters that are none of rwx")
        error = self._vm.ram_map(run.current, gpa, va, length, access)
        regions = [
            {"gpa": hex(r.user_vm_pa), "hpa": hex(r.service_vm_pa), "length": r.size, "access": r.access}
            for r in self._vm.regions
        ]
        return {"result": errorcode[-error] if error else "ok", "regions": regions}
