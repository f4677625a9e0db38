"""The first lines of an answer: the kernel that it holds for, and what of that nobody said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pfnmap.sizes import format_size

__all__ = ["assumed_line", "kernel_line"]


def kernel_line(kernel: Mapping[str, Any]) -> str:
    """Return what `Kernel.describe` says in a line: ``x86_64 7.3.4, 4K pages, THP always, Kconfig defaults``."""
    parts = [
        f"{kernel['arch']} {kernel['release']}",
        f"{format_size(kernel['page_size'])} pages",
        f"THP {kernel['thp']}",
        kernel["config_source"],
    ]
    return ", ".join(parts)


def assumed_line(kernel: Mapping[str, Any]) -> str:
    """Return what of a kernel nobody said, in one line; empty where all was said."""
    assumed = kernel["assumed"]
    return f"assumed: {'; '.join(assumed)}" if assumed else ""
