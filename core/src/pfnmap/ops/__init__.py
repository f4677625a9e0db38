"""The ops of steps, as RECORDINGS.md names them: one module a family, each with its table `OPS`."""

from collections.abc import Mapping

from pfnmap.contract.defaults import DEFAULT_DRIVER
from pfnmap.ops import access, mapping, memory_failure, process, procfs, smaps, touching
from pfnmap.ops.op import Op

__all__ = ["ACTIONS_OF", "OPS"]

OPS: Mapping[str, Op] = {
    **mapping.OPS,
    **touching.OPS,
    **process.OPS,
    **memory_failure.OPS,
    **procfs.OPS,
    **smaps.OPS,
    **access.OPS,
}

ACTIONS_OF: Mapping[str, str] = dict.fromkeys(
    ("pci_memory", "dev_dbg", "device_reset", "dma_map", "dma_unmap"), DEFAULT_DRIVER
)
"""Ops of RECORDINGS.md that are actions of a plugin, with its name: what to say where it is not linked."""
