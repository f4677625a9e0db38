"""The first lines of an answer: the kernel that it holds for, and what of that nobody said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pfnmap.sizes import format_size

__all__ = ["assumed_lines", "kernel_line"]

_STATED: Final = ("architecture", "release", "page size", "THP", "configuration", "cpu")
"""What sentences of `Kernel.assumed` begin with where `kernel_line`, or the CPU's defaults, say the rest."""


def kernel_line(kernel: Mapping[str, Any]) -> str:
    """Return what `Kernel.describe` says in a line: ``x86_64 7.3.4, 4K pages, THP always, Kconfig defaults``."""
    parts = [
        f"{kernel['arch']} {kernel['release']}",
        f"{format_size(kernel['page_size'])} pages",
        f"THP {kernel['thp']}",
        kernel["config_source"],
    ]
    return ", ".join(parts)


def assumed_lines(kernel: Mapping[str, Any]) -> list[str]:
    """Return what of a kernel nobody said: in one line what took its default, and a line for each doubt."""
    defaults, doubts = [], []
    for sentence in kernel["assumed"]:
        what, colon, _ = sentence.partition(": ")
        if colon and what in _STATED:
            defaults.append(what)
        else:
            doubts.append(f"assumed: {sentence}")
    return [*([f"assumed: {', '.join(defaults)}"] if defaults else []), *doubts]
