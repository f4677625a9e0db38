"""Checks of the Kconfig fragment, and of what it claims against what the plugin provides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pfnmap.contract.entry import Level
from pfnmap.contract.plan import HUGE_LEVELS, LeafLevel
from pfnmap.hookspecs import ENTRY_HOOKS
from pfnmap.plugins import implemented_hooks
from pfnmap.testing.arch_subject import ArchSubject
from pfnmap.testing.check import Check, Violation

__all__ = ["CHECKS"]

_HUGE: tuple[Level, ...] = ("pmd", "pud")
_FOLDABLE: tuple[Level, ...] = ("p4d", "pgd")
_NEEDED = ("X_special", "X_mkspecial", "X_pgprot")
_NEEDED_PUD = (
    "pfn_pud",
    "pud_pfn",
    "pud_write",
    "pud_mkhuge",
    "pud_mkyoung",
    "pud_mkold",
    "pud_mkdirty",
    "pud_mkwrite",
    "pud_wrprotect",
    "pud_modify",
)


def has_a_fragment(subject: ArchSubject) -> None:
    hook: Any = getattr(subject.arch, "kconfig", None)
    text = hook(subject.kernel.release.has) if hook else None
    if not text or not any(line.startswith("config ") for line in text.splitlines()):
        raise Violation("the hook kconfig gives no fragment that declares a symbol")
    if not subject.kernel.config.enabled("HAVE_PCI"):
        raise Violation("HAVE_PCI is not selected: there is no BAR to map")
    for symbol in ("64BIT", "MMU"):
        if not subject.kernel.config.enabled(symbol):
            raise Violation(f"{symbol} is not set: there are no tables, or not of 64-bit entries")


def selects_are_met(subject: ArchSubject) -> None:
    if problems := subject.kernel.config.bad_selects:
        raise Violation("; ".join(problems))


def claims_have_ops(subject: ArchSubject, level: Level) -> None:
    symbol = f"ARCH_SUPPORTS_{level.upper()}_PFNMAP"
    needed = [name.replace("X", level) for name in _NEEDED] + [f"{level}_trans_huge"]
    if level == "pud":
        needed += _NEEDED_PUD
    lacking = [name for name in needed if subject.ops.owners[name] != "arch"]
    if lacking:
        owners = ", ".join(f"{name} ({subject.ops.owners[name]})" for name in lacking)
        raise Violation(f"{symbol}=y, but this architecture does not provide {owners}")


def pte_special_as_said(subject: ArchSubject) -> None:
    _as_said(subject, "ARCH_HAS_PTE_SPECIAL", ("pte_special", "pte_mkspecial"))


def huge_special_as_said(subject: ArchSubject, level: Level) -> None:
    _as_said(subject, f"ARCH_SUPPORTS_{level.upper()}_PFNMAP", (f"{level}_special", f"{level}_mkspecial"))


def devmap_as_said(subject: ArchSubject) -> None:
    _as_said(subject, "ARCH_HAS_PTE_DEVMAP", ("pte_devmap", "pte_mkdevmap"))


def soft_dirty_as_said(subject: ArchSubject) -> None:
    _as_said(subject, "HAVE_ARCH_SOFT_DIRTY", ("pte_soft_dirty", "pte_mksoft_dirty", "pte_clear_soft_dirty"))


def _as_said(subject: ArchSubject, symbol: str, names: tuple[str, ...]) -> None:
    """Raise Violation where the plugin provides ops (whether or not the core uses them) and the symbol is not set, or
    the other way round."""
    said = subject.kernel.config.enabled(symbol)
    for name in names:
        if _provides(subject, name) != said:
            verb = "does not provide" if said else "provides"
            raise Violation(f"{symbol} is {'y' if said else 'n'}, and this architecture {verb} {name}")


def _provides(subject: ArchSubject, name: str) -> bool:
    arch = subject.arch
    hook = name not in ENTRY_HOOKS or name in implemented_hooks(arch)
    return hook and getattr(arch, name, None) is not None and name not in arch.undefined


def levels_as_said(subject: ArchSubject) -> None:
    said = subject.kernel.config.get("PGTABLE_LEVELS", "")
    walked = len(subject.geometry.walk)
    if not said.isdecimal():
        raise Violation("PGTABLE_LEVELS has no value")
    # What the headers fold has no ops of the architecture's; what a boot folds has.
    compiled = 3 + sum(subject.ops.owners[f"{level}_populate"] == "arch" for level in _FOLDABLE)
    if walked > int(said) or (int(said) > 3 and compiled != int(said)):
        raise Violation(
            f"PGTABLE_LEVELS is {said}; {walked} levels are walked, and {compiled} have a populate of this "
            "architecture's"
        )


def leaf_changes_are_those(subject: ArchSubject, level: LeafLevel) -> None:
    kernel = subject.kernel
    package, release = type(subject.arch).__module__.partition(".")[0], kernel.release
    said = ("huge-pfnmap", *subject.arch.leaf_changes.get(level, ()))
    for change in sorted(kernel.asked):
        if release.known[change].package == package and release.has(change):
            less = replace(release, changes={**release.changes, change: "no"}, settled=release.settled | {change})
            gone = not kernel.relink(less).pfnmap(level)
            if gone != (change in said):
                verb = "does not tell" if gone else "tells"
                raise Violation(
                    f"without {change} there are {'no' if gone else 'still'} {level} leaves of pfnmaps, and "
                    f"leaf_changes {verb} the planner that they wait for it"
                )


def one_way_of_tracking(subject: ArchSubject) -> None:
    owned = [name for name in ("track_pfn_insert", "pfnmap_track") if subject.ops.owners[name] == "arch"]
    if len(owned) > 1:
        raise Violation(f"{' and '.join(owned)} are both provided: a release declares the one or the other")


def hooks_are_marked(subject: ArchSubject) -> None:
    implemented = set(implemented_hooks(subject.arch))
    for name in ENTRY_HOOKS:
        if callable(getattr(subject.arch, name, None)) and name not in implemented:
            raise Violation(f"{name} is defined without @hookimpl: nobody calls it, the fallback is used")


CHECKS = (
    Check("kconfig-fragment", "an architecture's symbols decide which levels a pfnmap may use", has_a_fragment),
    Check(
        "kconfig-selects",
        "a select pushes a symbol past its dependencies; the kernel's own conf warns of that",
        selects_are_met,
    ),
    Check(
        "kconfig-claims",
        "a level that Kconfig offers to pfnmaps has the ops that a pfnmap needs",
        claims_have_ops,
        ("config-pfnmap:X",),
        _HUGE,
    ),
    Check(
        "pte-special-claim",
        "ARCH_HAS_PTE_SPECIAL is set exactly where pte_special and pte_mkspecial are provided",
        pte_special_as_said,
    ),
    Check(
        "special-claim",
        "a level's special bit is provided where Kconfig offers that level to pfnmaps, and nowhere else",
        huge_special_as_said,
        ("leaf:X", "huge-pfnmap"),
        _HUGE,
    ),
    Check(
        "devmap-claim",
        "ARCH_HAS_PTE_DEVMAP is set exactly where pte_devmap and pte_mkdevmap are provided",
        devmap_as_said,
    ),
    Check(
        "soft-dirty-claim",
        "HAVE_ARCH_SOFT_DIRTY is set exactly where the ops are provided: else the headers define them, to mark nothing",
        soft_dirty_as_said,
    ),
    Check(
        "pgtable-levels",
        "PGTABLE_LEVELS are the levels that the kernel is compiled for; a boot walks them, or folds some",
        levels_as_said,
    ),
    Check(
        "leaf-changes",
        "leaf_changes tells the planner exactly those changes without which a level has no leaves of pfnmaps",
        leaf_changes_are_those,
        ("pfnmap:X",),
        HUGE_LEVELS,
    ),
    Check(
        "tracking-claim",
        "memory types of pfnmaps are tracked by vma or by range: include/linux/pgtable.h of a release has one of them",
        one_way_of_tracking,
    ),
    Check(
        "hooks-marked",
        "a hook counts by its mark: what is defined without it nobody calls",
        hooks_are_marked,
    ),
)
