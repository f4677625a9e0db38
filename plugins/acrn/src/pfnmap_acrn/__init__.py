"""pfnmap plugin: ACRN's Hypervisor Service Module (drivers/virt/acrn)."""

from .hsm import Acrn

__all__ = ["Acrn"]
