"""The JSON that commands print: one document with its schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["dumps", "schema"]


def schema(command: str, version: int = 1) -> str:
    """Return the ``schema`` value of a command's document: ``pfnmap-plan/1``."""
    return f"pfnmap-{command}/{version}"


def dumps(document: Mapping[str, Any]) -> str:
    """Return a document as ASCII text, in the order of its keys.

    Raises TypeError for a value that JSON has no form for, ValueError for a NaN or an infinity.
    """
    return json.dumps(dict(document), indent=2, allow_nan=False).replace("\x7f", "\\u007f")
