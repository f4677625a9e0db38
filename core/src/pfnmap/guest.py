"""The closed-form planner's other half: at which level a KVM guest has a mapped BAR in its second-stage tables.

Like `pfnmap.plan` it works on runs, and shares nothing with what does the same fault by fault (the kvm plugin); a
property test holds the two equal. Read and not run: virt/kvm/kvm_main.c, arch/x86/kvm/mmu/mmu.c, arch/arm64/kvm/mmu.c,
arch/riscv/kvm/mmu.c and arch/powerpc/kvm/book3s_64_mmu_radix.c of 6.12.117 and 6.1.192.

The memslot is the mapping. Its ends are leaf boundaries of the process already, so what can make the guest's leaves
smaller is the architecture's own limit, and guest and host addresses that are not congruent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pfnmap.errors import BadInput, Refused
from pfnmap.sizes import format_size

if TYPE_CHECKING:
    from pfnmap.kernel import Kernel
    from pfnmap.plan import LeafLevel, Run

__all__ = ["GUEST_BASE", "KVM_CHANGES", "GuestPlan", "GuestRun", "KvmMmu"]

GUEST_BASE: Final = 0x80_0000_0000
"""Where a guest has a BAR that nobody says an address for: the lowest address from here on that is a multiple of the
BAR's size, as a guest's firmware or kernel places it."""

KVM_CHANGES: Final = ("arm64-kvm-pfnmap-block", "riscv-kvm-no-pfnmap-ioremap", "vfio-unmap-mapping-range")
"""The changes that a guest's level depends on."""

_LEVELS: Final[tuple[LeafLevel, ...]] = ("pud", "pmd", "pte")

Choice: TypeAlias = "tuple[LeafLevel, str]"
"""A level, and why it is less than the process's ("" where it is not)."""


@dataclass(frozen=True, slots=True)
class GuestRun:
    """A stretch of the guest's mapping at one level: `count` leaves from guest physical address `gpa` on (bytes)."""

    gpa: int
    length: int
    level: LeafLevel
    count: int


@dataclass(frozen=True, slots=True)
class GuestPlan:
    """How a guest has the mapping. `faults`: exits to KVM when the guest touches every page once in ascending order;
    `fixups` and `driver_calls`: what those cost where the process has nothing mapped yet. `notes`: why not larger."""

    gpa: int
    runs: tuple[GuestRun, ...]
    faults: int
    fixups: int
    driver_calls: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def counts(self) -> dict[LeafLevel, int]:
        """Leaves per level."""
        return {level: sum(run.count for run in self.runs if run.level == level) for level in _LEVELS}

    def as_json(self) -> dict[str, Any]:
        """Return it in the form that `plan --kvm --json` prints."""
        return {
            "hypervisor": "kvm",
            "gpa": hex(self.gpa),
            "runs": [
                {"gpa": hex(run.gpa), "length": run.length, "level": run.level, "count": run.count} for run in self.runs
            ],
            "counts": self.counts,
            "faults": self.faults,
            "cold": {"walks": self.faults + self.fixups, "fixups": self.fixups, "driver_calls": self.driver_calls},
            "warm": {"walks": self.faults},
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }


def _largest_congruent(level: LeafLevel, off: Mapping[LeafLevel, int]) -> Choice:
    """x86_64: the process's level, or the largest below modulo which the addresses are congruent."""
    for smaller in _LEVELS[_LEVELS.index(level) :]:
        if not off[smaller]:
            return smaller, "" if smaller == level else "off"
    raise AssertionError("addresses of pages are congruent modulo a page")


def _pmd_at_most(level: LeafLevel, off: Mapping[LeafLevel, int]) -> Choice:
    """arm64: a PMD block under a leaf that is no smaller."""
    if level == "pte":
        return "pte", ""
    if off["pmd"]:
        return "pte", "off"
    return "pmd", "" if level == "pmd" else "limit"


def _pages(level: LeafLevel, off: Mapping[LeafLevel, int]) -> Choice:
    """riscv64, and arm64 before it took blocks: base pages."""
    return "pte", "" if level == "pte" else "limit"


def _same_or_pages(level: LeafLevel, off: Mapping[LeafLevel, int]) -> Choice:
    """powerpc64: the process's level, or a base page where the addresses are not congruent modulo it."""
    return ("pte", "off") if off[level] else (level, "")


_CHOICES: Final[Mapping[str, Callable[[LeafLevel, Mapping[LeafLevel, int]], Choice]]] = {
    "x86_64": _largest_congruent,
    "arm64": _pmd_at_most,
    "riscv64": _pages,
    "powerpc64": _same_or_pages,
}


@dataclass(frozen=True)
class KvmMmu:
    """What of a kernel decides over a guest's leaves.

    `choose`: the level under a leaf of the process, after how far the addresses are off modulo each level. `limit`:
    the sentence for an architecture's own limit. `eager`: pfnmaps are mapped when the memslot is made, not by faults;
    `wrong`: and then to the wrong memory.
    """

    choose: Callable[[LeafLevel, Mapping[LeafLevel, int]], Choice]
    limit: str
    eager: bool
    wrong: bool

    @classmethod
    def of(cls, kernel: Kernel) -> KvmMmu:
        """Read a linked kernel. Raises Refused for an architecture, or an MMU of it, whose KVM is not modelled."""
        name = kernel.arch.name
        if name not in _CHOICES or kernel.cpu.get("mmu") == "hash":
            modelled = f"{', '.join(_CHOICES)} (with the radix MMU)"
            raise Refused("plan --kvm", f"{name}'s KVM is not modelled in this boot; those of {modelled} are")
        page = format_size(kernel.geometry.PAGE_SIZE)
        choose, limit = _CHOICES[name], f"{name}'s KVM maps a pfnmap with {page} pages"
        if name == "arm64":
            limit = f"arm64's KVM maps blocks of {format_size(kernel.geometry.size('pmd'))} at most"
            if not kernel.has("arm64-kvm-pfnmap-block"):
                choose, limit = _pages, f"{kernel.release.name} is not known to have arm64-kvm-pfnmap-block"
        eager = name == "riscv64" and not kernel.has("riscv-kvm-no-pfnmap-ioremap")
        return cls(choose, limit, eager, eager and kernel.has("vfio-unmap-mapping-range"))

    def plan(
        self,
        runs: Sequence[Run],
        gpa: int,
        va: int,
        sizes: Mapping[LeafLevel, int],
        fixups: int,
        driver_calls: int,
    ) -> GuestPlan:
        """Plan a guest that has what is mapped in `runs` from `va` on at `gpa`."""
        if gpa % sizes["pte"]:
            raise BadInput("--gpa", f"{gpa:#x} is not a multiple of the {format_size(sizes['pte'])} page")
        if runs and gpa + runs[-1].end - va > 1 << 64:
            raise BadInput("--gpa", f"the mapping does not fit in 64 bits from {gpa:#x} on")
        off = {level: (gpa - va) % sizes[level] for level in _LEVELS}
        chosen = [(run, *self.choose(run.level, off)) for run in runs]
        guest = [GuestRun(gpa + run.va - va, run.length, level, run.length // sizes[level]) for run, level, _ in chosen]
        notes = (self._note(run.level, why, off, sizes) for run, _, why in chosen if why)
        warnings = ["WRONG MEMORY: the guest reaches what vm_pgoff says, which is not the PFN"] if self.wrong else []
        return GuestPlan(
            gpa,
            tuple(_merged(guest)),
            0 if self.eager else sum(run.count for run in guest),
            0 if self.eager else fixups,
            0 if self.eager else driver_calls,
            tuple(dict.fromkeys(notes)),
            tuple(warnings if runs else ()),
        )

    def _note(self, level: LeafLevel, why: str, off: Mapping[LeafLevel, int], sizes: Mapping[LeafLevel, int]) -> str:
        name = format_size(sizes[level])
        if why == "limit":
            return f"guest not {name}: {self.limit}"
        return f"guest not {name}: the guest's address is {off[level]:#x} off the VA modulo {name}"


def _merged(runs: Iterable[GuestRun]) -> Iterable[GuestRun]:
    """Runs with neighbours of one level put together."""
    last: GuestRun | None = None
    for run in runs:
        if last is not None and last.level == run.level:
            last = GuestRun(last.gpa, last.length + run.length, run.level, last.count + run.count)
        else:
            if last is not None:
                yield last
            last = run
    if last is not None:
        yield last
