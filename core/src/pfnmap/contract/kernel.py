"""What everybody may ask of a linked kernel, and the state of a booted machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property
from typing import Any, Final, Protocol, TypeVar

from pfnmap.contract.entry import Level
from pfnmap.contract.geometry import Geometry
from pfnmap.contract.pgtable_ops import Ops, PgtableOps
from pfnmap.contract.phys import PhysicalMemory
from pfnmap.errors import LinkError
from pfnmap.trace import Trace, Warn
from pfnmap.vm_flags import VM_READ, VM_SHARED

__all__ = ["THP_SETTINGS", "LinkedConfig", "LinkedKernel", "LinkedRelease", "MachineState"]

T = TypeVar("T")

THP_SETTINGS: Final = ("always", "madvise", "never")


class LinkedConfig(Protocol):
    """A resolved configuration, as far as it is asked (`pfnmap.config.Config` is one)."""

    def enabled(self, symbol: str) -> bool:
        """Tell whether a symbol is y or m."""

    def value(self, symbol: str) -> str:
        """Return the value of a symbol, "undefined" for one that this release does not declare."""


class LinkedRelease(Protocol):
    """A release, as far as it is asked (`pfnmap.release.Release` is one)."""

    @property
    def name(self) -> str:
        """How answers call it."""

    @property
    def changes(self) -> Mapping[str, str]:
        """Every known change with "yes", "no" or "unknown"."""

    def has(self, change: str) -> bool:
        """Tell whether it has a change; an unknown one counts as absent. Raises Unknown for a wrong id."""


class LinkedKernel:
    """A linked kernel (`pfnmap.kernel.Kernel.link` makes one): immutable, without memory or devices.

    `arch`, `ops` (bound), `geometry`, `config`, `release`, `cpu` (boot-time state), `thp` (what a boot sets the sysfs
    knob transparent_hugepage/enabled to).
    """

    arch: PgtableOps
    ops: Ops
    geometry: Geometry
    config: LinkedConfig
    release: LinkedRelease
    cpu: Mapping[str, Any]
    thp: str

    def has(self, change: str) -> bool:
        """Tell whether this release has an upstream change; an unknown one counts as absent and stands in `assumed`."""
        return self.release.has(change)

    def pfnmap(self, level: Level) -> bool:
        """Tell whether leaves of a level can be installed for a pfnmap under this configuration and release."""
        return level == "pte" or (
            level in ("pmd", "pud")
            and self.config.enabled("TRANSPARENT_HUGEPAGE")
            and self.config.enabled(f"ARCH_SUPPORTS_{level.upper()}_PFNMAP")
        )

    def once(self, follows: Callable[[Any], T]) -> T:
        """Return what follows from this kernel alone, as a function of it says; it is called once, or by each thread
        that asks before the first has its answer."""
        followed = self._followed  # looked up once: threads may find different ones at first
        if follows not in followed:
            followed[follows] = follows(self)
        found: T = followed[follows]
        return found

    @cached_property
    def _followed(self) -> dict[Callable[[Any], Any], Any]:
        return {}

    @cached_property
    def per_vma_lock_faults(self) -> bool:
        """Whether a user's fault is first handled under the per-VMA lock alone."""
        return self.has("per-vma-lock-faults") and self.config.enabled("PER_VMA_LOCK")

    @cached_property
    def access_error(self) -> Callable[[int, bool], int]:
        """``access_error(vm_flags, write)``: the architecture's, asked once for each."""
        return cache(self.arch.access_error)

    @cached_property
    def pfnmap_track_ctx(self) -> bool:
        """Whether what is tracked of a pfnmap is tracked by a context that vmas share, and not by vma."""
        return self.has("pat-pfnmap-track")

    @cached_property
    def phys_limit(self) -> int:
        """The first physical address (bytes) that no PTE can hold."""
        shift, prot = self.geometry.PAGE_SHIFT, self.arch.protection_map[VM_READ | VM_SHARED]
        for bits in range(64, shift, -1):
            last = ((1 << bits) - 1) >> shift
            if self.ops.pte_pfn(self.ops.pfn_pte(last, prot)) == last:
                return 1 << bits
        raise LinkError(f"architecture {self.arch.name}: pte_pfn does not return what pfn_pte was given")


class MachineState:
    """What a booted machine holds: `phys` (simulated physical memory), `trace`, `clock_ms`, `thp` (the sysfs knob
    transparent_hugepage/enabled), `thp_sizes` (what every hugepages-*/enabled was set to; None: as at boot, where the
    PMD size inherits `thp` and the others are never used), `poisoned` (PFNs that are known to be bad), `installed`
    (bytes of RAM; None: more than anybody asks for). `kernel` is what it runs, `arch_module` the architecture's own
    part (an instance of `Arch.module`; None where it has none)."""

    def __init__(self, kernel: LinkedKernel, reserved: Iterable[tuple[int, int]] = ()) -> None:
        """`reserved`: where BARs are, (address, size) in bytes each; no RAM is there."""
        reserved = list(reserved)
        self.kernel = kernel
        self.trace = Trace()
        self.clock_ms = 0
        self.thp = kernel.thp
        self.thp_sizes: str | None = None
        self.installed: int | None = None
        self.poisoned: set[int] = set()
        self.arch_module: Any = None
        limit = min(kernel.phys_limit, kernel.arch.linear_map) if reserved else 1 << 64
        self.phys = PhysicalMemory(kernel.geometry.PAGE_SIZE, limit, reserved)
        self._warned: set[str] = set()

    def warn_once(self, where: str, finding: str = "") -> None:
        """WARN_ON_ONCE: write a WARNING to the log, once per boot for each place ("file function")."""
        if where not in self._warned:
            self._warned.add(where)
            self.trace.emit(Warn(f"WARNING: CPU: 0 PID: 1 at {where}", finding))
