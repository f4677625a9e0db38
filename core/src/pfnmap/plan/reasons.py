"""Why a level is not used: what rules it out on a kernel, by its driver, and by where the mapping lies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from pfnmap.contract.plan import LeafLevel, Reason
from pfnmap.records import dataclass
from pfnmap.sizes import format_size

if TYPE_CHECKING:
    from pfnmap.kernel import Kernel

__all__ = ["REASONS", "Blocked", "arch_lacks", "level_reasons", "thp_disabled"]

REASONS: Final = (
    "not_mmapable",
    "arch_no_level",
    "config",
    "release",
    "no_huge_fault",
    "thp_disabled",
    "too_small",
    "not_congruent",
    "vma_edge",
    "lower_table",
)
"""Why a level is not used, in the order in which the first one is named. `lower_table` cannot apply in an empty address
space, which is what is planned for."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why [va, va + length) is not mapped at `level`: the first reason of `REASONS` that applies, in words with
    numbers, and what would still block once that is lifted."""

    va: int
    length: int
    level: LeafLevel
    reason: str
    detail: str
    also: tuple[str, ...] = ()

    @classmethod
    def by(cls, va: int, length: int, level: LeafLevel, found: Iterable[Reason]) -> Blocked:
        """Name the first of some reasons (at least one), and the others after it."""
        first, *others = sorted(found, key=lambda reason: REASONS.index(reason.name))
        also = dict.fromkeys(reason.name for reason in others if reason.name != first.name)
        return cls(va, length, level, first.name, first.detail, tuple(also))


def level_reasons(kernel: Kernel, level: LeafLevel, *, madvised: bool = False) -> Iterable[Reason]:
    """Return what rules a level out whatever is mapped, and by whomever; `madvised`: with MADV_HUGEPAGE."""
    checks = (
        ("arch_no_level", arch_lacks(kernel, level)),
        ("config", _config_lacks(kernel, level)),
        ("release", _release_lacks(kernel, level)),
        ("thp_disabled", thp_disabled(kernel, madvised=madvised)),
    )
    return (Reason(name, detail) for name, detail in checks if detail)


def arch_lacks(kernel: Kernel, level: LeafLevel) -> str:
    """Why the architecture has no leaf of a level that a fault would ask for; empty if it has."""
    name = f"{kernel.arch.name} has no {format_size(kernel.geometry.size(level))} pfnmap leaf"
    symbol = {"pmd": "HAVE_ARCH_TRANSPARENT_HUGEPAGE", "pud": "HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD"}[level]
    if not getattr(kernel.ops, f"{level}_none")(kernel.arch.empty(level)):
        return f"{name}: the {level.upper()} is folded with {len(kernel.geometry.walk)} levels of page tables"
    return "" if kernel.config.enabled(symbol) else f"{name}: it does not select {symbol}"


def _config_lacks(kernel: Kernel, level: LeafLevel) -> str:
    config = kernel.config
    if not config.enabled("TRANSPARENT_HUGEPAGE"):
        return "TRANSPARENT_HUGEPAGE=n" + (", which PREEMPT_RT=y forbids" if config.enabled("PREEMPT_RT") else "")
    symbol = f"ARCH_SUPPORTS_{level.upper()}_PFNMAP"
    if config.enabled(symbol) or arch_lacks(kernel, level) or _release_lacks(kernel, level):
        return ""
    selected = config.enabled("ARCH_SUPPORTS_HUGE_PFNMAP")
    return f"{symbol}=n" + ("" if selected else f": {kernel.arch.name} does not select ARCH_SUPPORTS_HUGE_PFNMAP")


def _release_lacks(kernel: Kernel, level: LeafLevel) -> str:
    needed = ("huge-pfnmap", *kernel.arch.leaf_changes.get(level, ()))
    return next((kernel.lacks(change) for change in needed if not kernel.has(change)), "")


def thp_disabled(kernel: Kernel, *, madvised: bool = False) -> str:
    """Why THP's settings gate the levels, for a mapping with MADV_HUGEPAGE or without; empty if they do not."""
    if kernel.config.enabled("TRANSPARENT_HUGEPAGE") and not kernel.ops.has_transparent_hugepage():
        return "the CPU has no huge leaves: has_transparent_hugepage() is false"
    if kernel.thp == "always" or (kernel.thp == "madvise" and madvised) or kernel.has("thp-bypass-pfnmap"):
        return ""
    needs = " and nothing asks for MADV_HUGEPAGE" if kernel.thp == "madvise" else ""
    why = kernel.lacks("thp-bypass-pfnmap")
    return f"transparent_hugepage/enabled is {kernel.thp}{needs}, which gates pfnmaps too: {why}"
