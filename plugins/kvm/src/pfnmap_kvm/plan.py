"""What the planner is told of KVM: at which level a guest has a mapping in its second-stage tables.

It works on runs, and shares nothing with what does the same fault by fault (`mmu`); a property test holds the two
equal. x86_64 is recorded (group kvm, `level.*` and `scan.*`); the others are read and not run, in the sources that
their modules name.

The memslot is the mapping. Its ends are leaf boundaries of the process already, so what can make the guest's leaves
smaller is the architecture's own limit, and guest and host addresses that are not congruent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import ClassVar, Final

from pfnmap.contract.guest import Choice, GuestPlan, GuestRun, Host, Hosted, Hypervisor, SecondStage
from pfnmap.contract.option import Asked, PlanOption
from pfnmap.contract.plan import LEAF_LEVELS, LeafLevel
from pfnmap.errors import BadInput, Refused
from pfnmap.sizes import format_size, parse_address

from .pgoff_blocks import block_runs, cold_of, leaves_of

__all__ = ["GPA", "GUEST_BASE", "KVM", "KvmGuests"]

GUEST_BASE: Final = 0x80_0000_0000
"""Where a guest has a BAR that nobody says an address for: the lowest address from here on that is a multiple of the
BAR's size, as a guest's firmware or kernel places it."""

_LEVELS: Final[tuple[LeafLevel, ...]] = tuple(reversed(LEAF_LEVELS))


def _largest_congruent(level: LeafLevel, off: Mapping[LeafLevel, int]) -> Choice:
    """x86_64: the process's level, or the largest below modulo which the addresses are congruent."""
    for smaller in _LEVELS[_LEVELS.index(level) :]:
        if not off[smaller]:
            return smaller, "" if smaller == level else "off"
    raise AssertionError("addresses of pages are congruent modulo a page")


def _pmd_at_most(level: LeafLevel, off: Mapping[LeafLevel, int]) -> Choice:
    """arm64, riscv64 from 7.0 on, loongarch64: a PMD block under a leaf that is no smaller."""
    if level == "pte":
        return "pte", ""
    if off["pmd"]:
        return "pte", "off"
    return "pmd", "" if level == "pmd" else "limit"


def _pages(level: LeafLevel, off: Mapping[LeafLevel, int]) -> Choice:
    """s390, and riscv64 before it took blocks: base pages."""
    return "pte", "" if level == "pte" else "limit"


def _same_or_pages(level: LeafLevel, off: Mapping[LeafLevel, int]) -> Choice:
    """powerpc64: the process's level, or a base page where the addresses are not congruent modulo it."""
    return ("pte", "off") if off[level] else (level, "")


def _x86_64(host: Host) -> SecondStage:
    return SecondStage(_largest_congruent)


def _arm64(host: Host) -> SecondStage:
    return SecondStage(_pmd_at_most, _at_most(host, "pmd"), changes=("arm64-kvm-pfnmap-block",))


def _at_most(host: Host, level: LeafLevel) -> str:
    return f"{host.arch.name}'s KVM maps a pfnmap with {format_size(host.geometry.size(level))} leaves at most"


def _riscv64(host: Host) -> SecondStage:
    changes = ("riscv-kvm-no-pfnmap-ioremap", "riscv-kvm-thp")
    eager = not host.has(changes[0])
    if not eager and host.has(changes[1]):
        return SecondStage(_pmd_at_most, _at_most(host, "pmd"), changes=changes)
    return SecondStage(_pages, _at_most(host, "pte"), eager, changes)


def _loongarch64(host: Host) -> SecondStage:
    return SecondStage(_pmd_at_most, _at_most(host, "pmd"))


def _s390(host: Host) -> SecondStage:
    gmap = "s390-kvm-new-gmap"
    if not host.has(gmap):
        raise Refused("plan --kvm", f"s390's guests share the page tables of the process: {host.lacks(gmap)}")
    return SecondStage(_pages, _at_most(host, "pte"), changes=(gmap,))


def _powerpc64(host: Host) -> SecondStage:
    return SecondStage(_same_or_pages)


_ARCHITECTURES: Final[Mapping[str, Callable[[Host], SecondStage]]] = {
    "x86_64": _x86_64,
    "arm64": _arm64,
    "loongarch64": _loongarch64,
    "riscv64": _riscv64,
    "powerpc64": _powerpc64,
    "s390": _s390,
}


class KvmGuests(Hypervisor):
    """KVM, as the planner knows it."""

    name: ClassVar[str] = "kvm"
    legend: ClassVar[str] = (
        "guest: leaves of a KVM guest's second-stage tables, and its exits to get them, page by page."
    )

    def changes(self, kernel: Host) -> tuple[str, ...]:
        """Return the changes that a guest's level depends on. Raises Refused for an architecture, or an MMU of it,
        whose KVM is not modelled."""
        return _second_stage(kernel).changes

    def guest(self, kernel: Host, hosted: Hosted) -> GuestPlan:
        """Plan a guest that has a mapping as one memory slot."""
        sizes, va, gpa = hosted.sizes, hosted.va, hosted.gpa
        stage = _second_stage(kernel)
        if gpa is None:
            size = 1 << (max(hosted.bar_size, sizes["pte"]) - 1).bit_length()
            gpa = -(-GUEST_BASE // size) * size + hosted.offset
        if gpa % sizes["pte"]:
            raise BadInput("--gpa", f"{gpa:#x} is not a multiple of the {format_size(sizes['pte'])} page")
        if hosted.runs and gpa + hosted.runs[-1].end - va > 1 << 64:
            raise BadInput("--gpa", f"the mapping does not fit in 64 bits from {gpa:#x} on")
        off = {level: (gpa - va) % sizes[level] for level in _LEVELS}
        if stage.changes == _arm64(kernel).changes and not kernel.has(stage.changes[0]):
            return self._by_pgoff(kernel, hosted, gpa, off)
        chosen = [(run, *stage.choose(run.level, off)) for run in hosted.runs]
        guest = [GuestRun(gpa + run.va - va, run.length, level, run.length // sizes[level]) for run, level, _ in chosen]
        notes = (_note(stage, run.level, why, off, sizes) for run, _, why in chosen if why)
        cold = hosted.reach(va, hosted.runs[-1].end if hosted.runs else va)
        warnings = []
        if stage.eager and not hosted.pgoff_is_pfn:
            warnings = ["WRONG MEMORY: the guest reaches what vm_pgoff says, which is not the PFN"]
        return GuestPlan(
            self.name,
            gpa,
            tuple(_merged(guest)),
            0 if stage.eager else sum(run.count for run in guest),
            0 if stage.eager else cold.fixups,
            0 if stage.eager else cold.driver_calls,
            tuple(dict.fromkeys(notes)),
            tuple(warnings if hosted.runs else ()),
        )

    def _by_pgoff(self, kernel: Host, hosted: Hosted, gpa: int, off: Mapping[LeafLevel, int]) -> GuestPlan:
        """Plan a guest of arm64 before `arm64-kvm-pfnmap-block`."""
        blocks = block_runs(hosted, off)
        fixups, driver_calls = cold_of(hosted, blocks)
        largest = max((run.level for run in blocks), key=LEAF_LEVELS.index, default="pte")
        notes = [
            f"guest not {format_size(hosted.sizes[level])}: the guest's address is {off[level]:#x} off the VA modulo"
            f" {format_size(hosted.sizes[level])}"
            for level in _LEVELS[: _LEVELS.index(largest)]
            if off[level] and hosted.runs and hosted.runs[-1].end - hosted.va >= hosted.sizes[level]
        ]
        return GuestPlan(
            self.name,
            gpa,
            tuple(_merged(leaves_of(kernel, hosted, gpa, blocks))),
            sum(run.count for run in blocks),
            fixups,
            driver_calls,
            tuple(notes[:1]),
            (),
        )


def _second_stage(kernel: Host) -> SecondStage:
    """What the architecture's own plugin says, or else what is known here."""
    name = kernel.arch.name
    if own := kernel.arch.second_stage(kernel, KvmGuests.name):
        return own
    if name not in _ARCHITECTURES or kernel.cpu.get("mmu") == "hash":
        modelled = f"{', '.join(_ARCHITECTURES)} (with the radix MMU)"
        raise Refused("plan --kvm", f"{name}'s KVM is not modelled in this boot; those of {modelled} are")
    return _ARCHITECTURES[name](kernel)


def _note(
    stage: SecondStage, level: LeafLevel, why: str, off: Mapping[LeafLevel, int], sizes: Mapping[LeafLevel, int]
) -> str:
    name = format_size(sizes[level])
    if why == "limit":
        return f"guest not {name}: {stage.limit}"
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


def _kvm(asked: Asked, value: bool) -> Asked:
    return replace(asked, hypervisor=KvmGuests.name)


def _gpa(asked: Asked, value: str) -> Asked:
    if asked.hypervisor is None:
        raise BadInput("", "--gpa goes with --kvm")
    return replace(asked, gpa=parse_address(value, "--gpa"))


KVM = PlanOption("kvm", "Say too at which level a KVM guest has it.", "Guest", _kvm)
GPA = PlanOption("gpa", "The guest has it at this guest physical address (with --kvm).", "Guest", _gpa, "ADDR")
