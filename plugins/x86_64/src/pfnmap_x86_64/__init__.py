"""pfnmap plugin: x86-64."""

from .arch import X86_64

__all__ = ["X86_64"]
