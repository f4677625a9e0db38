"""The ops of steps, as RECORDINGS.md names them: one module a family, each with its table `OPS`."""

from collections.abc import Mapping

from pfnmap.ops import access, mapping, memory_failure, process, procfs, smaps, touching
from pfnmap.ops.op import Op

__all__ = ["OPS"]

OPS: Mapping[str, Op] = {
    **mapping.OPS,
    **touching.OPS,
    **process.OPS,
    **memory_failure.OPS,
    **procfs.OPS,
    **smaps.OPS,
    **access.OPS,
}
