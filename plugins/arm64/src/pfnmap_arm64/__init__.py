"""pfnmap plugin for arm64: 4K, 16K and 64K pages, 36 to 52-bit virtual addresses, LPA2, hardware flags."""

from pfnmap_arm64.arch import Arm64

__all__ = ["Arm64"]
