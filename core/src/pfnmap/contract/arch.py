"""An architecture: the abstract class that a plugin of group ``pfnmap.arch`` implements."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from pfnmap.contract.entry import Has
from pfnmap.contract.geometry import MmuCpu
from pfnmap.contract.guest import Host, SecondStage
from pfnmap.contract.module import Module
from pfnmap.contract.pgtable_ops import PgtableOps
from pfnmap.contract.plan import LeafLevel

__all__ = ["Arch"]


class Arch(PgtableOps):
    """An architecture. A subclass is what an entry point of group ``pfnmap.arch`` names.

    One instance belongs to one linked kernel. Linking calls, in this order: the constructor without arguments, the
    `kconfig` hook (a fragment of Kconfig text), then `setup_arch` with the resolved configuration, the boot-time CPU
    state and the release; only then are ops bound. Everything that an op needs is settled in `setup_arch`, so that ops
    are plain arithmetic.
    """

    aliases: ClassVar[tuple[str, ...]] = ()
    """What other tools call it (dpkg, uname -m, rpm), in lower case with ``_`` for ``-``."""

    config_symbol: ClassVar[str] = ""
    """The Kconfig symbol that every configuration of this architecture sets to y, and no other's."""

    release_suffixes: ClassVar[Mapping[str, str]] = {}
    """Words in distributions' kernel names (``uname -r``) that stand for a page size: ``{"64k": "64K"}``. Where no word
    names the architecture, it is taken for the first that has the suffix."""

    cpu_defaults: ClassVar[Mapping[str, object]]
    """Boot-time state that `--cpu` may set, with the value of a current machine: key -> bool, int or str."""

    module: ClassVar[type[Module] | None] = None
    """What of the architecture has state of its own in a booted machine, or scenario actions (system calls of its own,
    reserved memory): each machine boots one, which `Machine.arch_module` is. Its name is the architecture's."""

    leaf_changes: Mapping[LeafLevel, tuple[str, ...]] = {}
    """The upstream changes without which this architecture has no pfnmap leaves of a level, for the planner; where it
    depends on the configuration, settled in `setup_arch`."""

    # What the conformance kit (`pfnmap.testing`) is told

    machines: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Machines that the kit links besides its own choice: a name -> arguments of `pfnmap.kernel.Kernel.link`
    (`release`, `given`, `config`, `page_size`, `cpu`, `thp`)."""

    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of the kit that this architecture fails, with the reason: "check", "check:level" or
    "check:level@machine" (the machine may hold ``*``) -> why."""

    vector_state: ClassVar[Mapping[str, str]] = {}
    """Boot-time state that a golden vector file tells among its `bits`: `cpu` key -> the name there."""

    mmu_cpu: ClassVar[MmuCpu | None] = None
    """The emulated CPU that walks this architecture's tables, if there is one, as
    ``MmuCpu("package.module:Class", {})``."""

    def second_stage(self, kernel: Host, hypervisor: str) -> SecondStage | None:
        """Tell the planner what a hypervisor (its plugin's name) makes of a process's leaves on this architecture.

        None: that is left to what the hypervisor's plugin itself knows.
        """
        return None

    @classmethod
    def cpu_of(cls, cpuinfo: Mapping[str, str]) -> Mapping[str, object]:
        """Return what of `cpu_defaults` a processor's lines in /proc/cpuinfo tell: ``{"flags": "fpu vme", ...}``."""
        return {}

    @abstractmethod
    def setup_arch(self, config: Mapping[str, str], cpu: Mapping[str, Any], has: Has) -> None:
        """Settle this boot: geometry, masks, which ops are `undefined`.

        `config` holds resolved symbols without CONFIG_ ("y", "m", "n", numbers as text; absent means "n"), `cpu` the
        complete boot-time state (`cpu_defaults` updated with what the user said), `has` the release's changes.
        """
