"""The inputs that vfio_pci reads besides the core's. A reader is imported when there is something to read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from pfnmap.host.reading import InputKind, Reading

if TYPE_CHECKING:
    from pfnmap.host.paste import Line

__all__ = ["INPUTS"]


def _qemu_trace(lines: Iterable[Line]) -> Reading:
    from .qemu_trace import parse_qemu_trace

    return parse_qemu_trace(lines)


INPUTS: Final[Mapping[str, InputKind]] = {
    "qemu-trace": InputKind(re.compile(r".*\bvfio_(?:region|listener|container|msix?|intx)_\w+[ (].*"), _qemu_trace),
}
