"""What stands at the end of each command's help and in its manual page: examples that the tests run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import tomli

from pfnmap.packages import file_text

__all__ = ["EXAMPLES", "epilog"]

EXAMPLES: Final[Mapping[str, Sequence[str]]] = tomli.loads(file_text("pfnmap", "cli/examples.toml") or "")
"""The lines by command (examples.toml)."""


def epilog(command: str) -> str | None:
    """Return the examples of a command as its help shows them, None where it has none."""
    found = EXAMPLES.get(command)
    return "\n\n".join(["Examples:", *(f"  {line}" for line in found)]) if found else None
