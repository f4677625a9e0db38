"""What configuration and CPU make of one boot: page size, levels, address widths, the levels that are walked.

Read from arch/arm64/include/asm/pgtable-hwdef.h (shifts and entries), memory.h (VA_BITS_MIN, vabits_actual),
pgtable.h (pgtable_l4_enabled, pgtable_l5_enabled, pgd_to_folded_p4d, p4d_to_folded_pud),
asm-generic/pgtable-no{p4d,pud,pmd}.h, and arch/arm64/kernel/pi/map_kernel.c (without LPA2: VA_BITS_MIN).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pfnmap import BadInput, Geometry, Level, WalkLevel
from pfnmap.records import dataclass

__all__ = ["Boot"]

_PAGE_SHIFTS: Final = {"ARM64_4K_PAGES": 12, "ARM64_16K_PAGES": 14, "ARM64_64K_PAGES": 16}
_VA_BITS: Final = {12: (39, 48, 52), 14: (36, 47, 48, 52), 16: (42, 48, 52)}
_NAMES: Final[dict[int, tuple[Level, ...]]] = {
    5: ("pgd", "p4d", "pud", "pmd", "pte"),
    4: ("pgd", "pud", "pmd", "pte"),
    3: ("pgd", "pmd", "pte"),
    2: ("pgd", "pte"),
}


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot of one build.

    `configured_va_bits` is CONFIG_ARM64_VA_BITS, `va_bits` vabits_actual, `pa_52` CONFIG_ARM64_PA_BITS_52 and
    `lpa2` lpa2_is_enabled(): addresses have 52 bits with 4K or 16K pages.
    """

    page_shift: int
    configured_va_bits: int
    va_bits: int
    pa_52: bool
    lpa2: bool

    @classmethod
    def read(cls, config: Mapping[str, str], cpu: Mapping[str, Any]) -> Boot:
        """Return the boot of a resolved configuration on a CPU; raise BadInput where the two cannot be."""
        chosen = [shift for symbol, shift in _PAGE_SHIFTS.items() if config.get(symbol, "n") == "y"]
        if len(chosen) != 1:
            raise BadInput("config", f"exactly one of {', '.join(_PAGE_SHIFTS)} must be y")
        page_shift = chosen[0]
        configured = _number(config, "ARM64_VA_BITS", _VA_BITS[page_shift])
        pa_52 = _number(config, "ARM64_PA_BITS", (48, 52)) == 52
        can_lpa2 = config.get("ARM64_LPA2", "n") == "y"
        wants_lpa2 = bool(cpu["lpa2"])

        minimum = configured if configured <= 48 else (47 if page_shift == 14 else 48)  # VA_BITS_MIN
        va_bits = cpu["va_bits"] or (configured if can_lpa2 and wants_lpa2 else minimum)
        # 48 with 16K pages is a state that no CPU boots in, but that the kernel's macros have an answer for.
        allowed = sorted({minimum, min(configured, 48), configured})
        if va_bits not in allowed:
            raise BadInput("cpu va_bits", f"{va_bits!r} where ARM64_VA_BITS={configured} has {allowed}")
        if can_lpa2 and wants_lpa2 != (va_bits == 52):
            raise BadInput("cpu", f"va_bits={va_bits} with lpa2={wants_lpa2}: 52 bits and LPA2 go together")
        return cls(page_shift, configured, va_bits, pa_52, can_lpa2 and wants_lpa2)

    @property
    def levels(self) -> int:
        """CONFIG_PGTABLE_LEVELS: the levels that were compiled in (ARM64_HW_PGTABLE_LEVELS)."""
        return (self.configured_va_bits - 4) // (self.page_shift - 3)

    @property
    def folded_at_run_time(self) -> bool:
        """Whether the level below the PGD takes its place: its index picks the slot in the top table."""
        return self.levels > 3 and self.va_bits < self.configured_va_bits

    @property
    def l5_enabled(self) -> bool:
        """pgtable_l5_enabled(): the P4D is a level of its own in this boot."""
        return self.levels == 5 and not self.folded_at_run_time

    @property
    def l4_enabled(self) -> bool:
        """pgtable_l4_enabled(): the PUD is a level of its own in this boot."""
        return self.levels == 5 or (self.levels == 4 and not self.folded_at_run_time)

    def geometry(self) -> Geometry:
        """Return the constants of the build and the levels that this boot walks."""
        bits = self.page_shift - 3
        pgdir_shift = self._shift(self.levels)
        constants = {"PAGE_SHIFT": self.page_shift, "PTRS_PER_PTE": 1 << bits}
        for level, name in enumerate(("PMD", "PUD", "P4D"), start=2):
            compiled_in = level < self.levels
            constants[f"{name}_SHIFT"] = self._shift(level) if compiled_in else pgdir_shift
            constants[f"PTRS_PER_{name}"] = 1 << bits if compiled_in else 1
        pgd_ptrs = 1 << (self.configured_va_bits - pgdir_shift)

        walked = self.levels - self.folded_at_run_time
        top_ptrs = 1 << bits if self.folded_at_run_time else pgd_ptrs
        walk = tuple(
            WalkLevel(name, self._shift(level), top_ptrs if level == walked else 1 << bits)
            for name, level in zip(_NAMES[walked], range(walked, 0, -1), strict=True)
        )
        # TASK_SIZE_64, but never more than the top table holds (see the 48 bits with 16K pages in `read`).
        task_size = min(1 << self.va_bits, top_ptrs << walk[0].shift)
        return Geometry(**constants, PGDIR_SHIFT=pgdir_shift, PTRS_PER_PGD=pgd_ptrs, walk=walk, task_size=task_size)

    def _shift(self, level: int) -> int:
        # Levels counted from the PTE = 1 (ARM64_HW_PGTABLE_LEVEL_SHIFT counts from the other end).
        return (self.page_shift - 3) * level + 3


def _number(config: Mapping[str, str], symbol: str, allowed: tuple[int, ...]) -> int:
    text = config.get(symbol, "n")
    if text not in {str(value) for value in allowed}:
        expected = ", ".join(map(str, allowed))
        raise BadInput(f"config {symbol}", f"{text!r} where this page size has {expected}")
    return int(text)
