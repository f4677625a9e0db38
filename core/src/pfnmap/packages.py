"""What a package carries beside its code: data files, found without importing the package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

__all__ = ["file_text"]


def file_text(package: str, name: str) -> str | None:
    """Return the text of a file of a top-level package, None where it has none; the package is not imported."""
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / name
        if path.is_file():
            return path.read_text(encoding="utf-8")
    return None
