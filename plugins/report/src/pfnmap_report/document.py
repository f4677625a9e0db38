"""What a report is made of: the JSON document that a command of pfnmap printed."""

from __future__ import annotations

from typing import Any, Final

from pfnmap.errors import BadInput
from pfnmap.host.bounded import MIB, read_json

__all__ = ["COMMANDS", "checked", "read_document"]

COMMANDS: Final = ("plan", "run", "host", "log", "verify")
"""The commands whose answers can be drawn."""
_LIMIT: Final = 64 * MIB
_PARTS: Final = {
    "plan": ("kernel", "mappings"),
    "run": ("kernel", "steps"),
    "host": ("host", "mappings"),
    "log": ("devices",),
    "verify": ("kernel", "booted", "records"),
}


def read_document(path: str) -> dict[str, Any]:
    """Read a document of at most 64 MiB, "-" from standard input. Raises BadInput for anything else, and for a
    document of another command or of another version of its schema."""
    return checked(read_json(path, _LIMIT), path)


def checked(document: Any, where: str) -> dict[str, Any]:
    """Return the document if it is one that can be drawn. Raises BadInput."""
    if not isinstance(document, dict) or not isinstance(said := document.get("schema"), str):
        raise BadInput(where, 'no answer of pfnmap: a JSON document has "schema": "pfnmap-plan/1" or the like')
    command = said.removeprefix("pfnmap-").removesuffix("/1")
    if said != f"pfnmap-{command}/1" or command not in COMMANDS:
        known = ", ".join(f"pfnmap-{name}/1" for name in COMMANDS)
        raise BadInput(where, f"schema {said[:60]!r} cannot be drawn, only {known}")
    if "sweep" in document:
        raise BadInput(where, "a sweep; plan --sweep with -o FILE.svg draws it")
    for part in _PARTS[command]:
        if part not in document:
            raise BadInput(where, f"{said} without {part!r}: the document is not whole")
    return document
