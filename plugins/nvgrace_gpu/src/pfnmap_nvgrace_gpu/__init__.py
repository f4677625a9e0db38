"""pfnmap plugin: the nvgrace-gpu driver (drivers/vfio/pci/nvgrace-gpu/main.c)."""

from pfnmap_nvgrace_gpu.core import NvgraceGpu

__all__ = ["NvgraceGpu"]
