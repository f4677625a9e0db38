"""What is taken where nobody says: the only plugins that the core names."""

from __future__ import annotations

from typing import Final

__all__ = ["DEFAULT_ARCH", "DEFAULT_DRIVER"]

DEFAULT_ARCH: Final = "x86_64"
"""The architecture."""

DEFAULT_DRIVER: Final = "vfio_pci"
"""Who binds a device: user space maps BARs through it nearly always."""
