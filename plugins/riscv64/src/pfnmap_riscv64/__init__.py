"""pfnmap plugin for riscv64: Sv39, Sv48 and Sv57, Svpbmt, Svrsw60t59b."""

from pfnmap_riscv64.arch import Riscv64

__all__ = ["Riscv64"]
