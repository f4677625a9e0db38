"""pfnmap plugin for powerpc64 (book3s): the radix and the hash MMU, 4K and 64K pages."""

from pfnmap_powerpc64.arch import Powerpc64

__all__ = ["Powerpc64"]
