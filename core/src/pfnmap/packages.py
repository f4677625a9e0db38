"""What a package carries, its code and data files, read without importing the package."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

__all__ = ["file_text", "source_texts"]


def file_text(package: str, name: str) -> str | None:
    """Return the text of a file of a top-level package, None where it has none; the package is not imported.

    What is not UTF-8 in it becomes U+FFFD.
    """
    for folder in _folders(package):
        path = Path(folder) / name
        if path.is_file():
            return path.read_text(encoding="utf-8", errors="replace")
    return None


def source_texts(package: str) -> Iterator[str]:
    """Yield the texts of a top-level package's modules; nothing is imported."""
    for folder in _folders(package):
        yield from (path.read_text(encoding="utf-8", errors="replace") for path in sorted(Path(folder).rglob("*.py")))


def _folders(package: str) -> list[str]:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # no name of a package, or a module that hides what it is
        return []
    return list((spec and spec.submodule_search_locations) or ())
