"""The ops of steps, as RECORDINGS.md names them: one module a family, each with its table `OPS`."""

from collections.abc import Mapping

from pfnmap.ops import access, mapping, process, procfs, touching
from pfnmap.ops.op import Op

__all__ = ["NOT_COVERED", "OPS"]

OPS: Mapping[str, Op] = {**mapping.OPS, **touching.OPS, **process.OPS, **procfs.OPS, **access.OPS}

NOT_COVERED = (
    frozenset(
        [
            "mprotect",
            "mremap",
            "mlock",
            "munlock",
            "msync",
            "mseal",
            "mlockall",
            "munlockall",
            "mbind",
            "move_pages",
            "get_mempolicy",
            "userfaultfd_register",
            "fork",
            "exit",
            "device_reset",
            "dma_map",
            "dma_unmap",
            "access",
            "pagemap",
            "pagemap_scan",
            "mincore",
            "smaps",
            "smaps_rollup",
            "numa_maps",
            "clear_refs",
        ]
    )
    - OPS.keys()
)
"""Ops that the model does not cover."""
