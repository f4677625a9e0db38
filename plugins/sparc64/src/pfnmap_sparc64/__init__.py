"""pfnmap plugin: the architecture sparc64."""

from pfnmap_sparc64.pgtable import Sparc64

__all__ = ["Sparc64"]
