"""pfnmap plugin: the architecture loongarch64."""

from pfnmap_loongarch64.pgtable import Loongarch64

__all__ = ["Loongarch64"]
