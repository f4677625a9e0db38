"""What a package carries, its code and data files, read without importing the package."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

__all__ = ["file_text", "source_texts"]


def file_text(package: str, name: str) -> str | None:
    """Return the text of a file of a top-level package, None where it has none; the package is not imported."""
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / name
        if path.is_file():
            return path.read_text(encoding="utf-8")
    return None


def source_texts(package: str) -> Iterator[str]:
    """Yield the texts of a top-level package's modules; nothing is imported."""
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder).rglob("*.py")):
            yield path.read_text(encoding="utf-8")
