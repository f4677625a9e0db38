"""What an architecture can do for huge pfnmaps, level by level, as one linked kernel has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pfnmap.contract.entry import Level
from pfnmap.contract.module import Driver, Module
from pfnmap.mm import in_release

if TYPE_CHECKING:
    from pfnmap.kernel import Kernel

__all__ = ["LEAF_LEVELS", "SYMBOLS", "capabilities", "users"]

LEAF_LEVELS: Final[tuple[Level, ...]] = ("pte", "pmd", "pud")
"""The levels at which the mm core installs leaves of a pfnmap."""

SYMBOLS: Final = (
    "TRANSPARENT_HUGEPAGE",
    "HAVE_ARCH_TRANSPARENT_HUGEPAGE",
    "HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD",
    "ARCH_SUPPORTS_HUGE_PFNMAP",
    "ARCH_SUPPORTS_PMD_PFNMAP",
    "ARCH_SUPPORTS_PUD_PFNMAP",
    "ARCH_HAS_PTE_SPECIAL",
    "PGTABLE_LEVELS",
)
"""The Kconfig symbols that decide over huge pfnmaps."""


def capabilities(kernel: Kernel) -> dict[str, Any]:
    """Return, for JSON, the levels (sizes in bytes, orders in base pages, who owns which op), the symbols, and who uses
    the mm core.

    `pfnmap`: whether leaves of the level can be installed for a pfnmap under this configuration and release. `folded`:
    the level has no table of its own in this boot.
    """
    return {
        "levels": {level: _level(kernel, level) for level in LEAF_LEVELS},
        "config": {symbol: kernel.config.value(symbol) for symbol in (*SYMBOLS, *_drivers(kernel))},
        "users": users(kernel),
    }


def _drivers(kernel: Kernel) -> list[str]:
    """The symbols that build the linked drivers, as far as this kernel has them."""
    symbols = {driver.config_symbol for driver in kernel.drivers.values() if isinstance(driver, Driver)}
    return sorted(symbols & kernel.config.keys())


def users(kernel: Kernel) -> dict[str, dict[str, Any]]:
    """Return, for JSON, of the architecture and each module that is linked with it what it provides and which functions
    of the mm core it calls; those that this release does not have are left out."""
    linked: list[Module | type[Module]] = [
        *([kernel.arch.module] if kernel.arch.module else []),
        *kernel.drivers.values(),
    ]
    return {
        plugin.name: {
            "provides": list(plugin.provides),
            "consumes": [name for name in plugin.consumes if in_release(name, kernel.has)],
        }
        for plugin in linked
    }


def _level(kernel: Kernel, level: Level) -> dict[str, Any]:
    geometry = kernel.geometry
    owners = {op: kernel.ops.owners[f"{level}_{op}"] for op in ("special", "mkspecial", "pgprot")}
    return {
        "size": geometry.size(level),
        "order": geometry.shift(level) - geometry.PAGE_SHIFT,
        **owners,
        "pfnmap": kernel.pfnmap(level),
        "folded": geometry.folded(level),
    }
