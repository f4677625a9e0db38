"""Checks of the Kconfig fragment, and of what it claims against what the plugin provides."""

from __future__ import annotations

from typing import Any

from pfnmap.contract.entry import Level
from pfnmap.generic import Generic
from pfnmap.hookspecs import ENTRY_HOOKS
from pfnmap.plugins import implemented_hooks
from pfnmap.testing.arch_subject import ArchSubject
from pfnmap.testing.check import Check, Violation

__all__ = ["CHECKS"]

_HUGE: tuple[Level, ...] = ("pmd", "pud")
_NEEDED = ("X_special", "X_mkspecial", "X_pgprot")
_NEEDED_PUD = (
    "pfn_pud",
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
    said = subject.kernel.config.enabled("ARCH_HAS_PTE_SPECIAL")
    for name in ("pte_special", "pte_mkspecial"):
        owner = subject.ops.owners[name]
        if (owner == "arch") != said:
            raise Violation(f"ARCH_HAS_PTE_SPECIAL is {'y' if said else 'n'}, {name} is {owner}")


def hooks_are_marked(subject: ArchSubject) -> None:
    implemented = set(implemented_hooks(subject.arch))
    for name in ENTRY_HOOKS:
        if callable(getattr(subject.arch, name, None)) and name not in implemented:
            raise Violation(f"{name} is defined without @hookimpl: nobody calls it, the fallback is used")
        function = getattr(subject.ops, name)
        generic = isinstance(getattr(function, "__self__", None), Generic)
        if generic != (subject.ops.owners[name] == "generic") or (name not in implemented and not generic):
            raise Violation(f"{name} is {subject.ops.owners[name]}, and bound to {function!r}")


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
        "hooks-marked",
        "a hook counts by its mark; for what is not provided the headers' fallback is used",
        hooks_are_marked,
    ),
)
