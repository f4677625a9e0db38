"""What stands at the end of each command's help and in its manual page: examples that the tests run (examples.toml)."""

from __future__ import annotations

from pfnmap.packages import file_text

__all__ = ["epilog", "examples"]


def examples() -> dict[str, list[str]]:
    """Return the examples by command."""
    import tomli

    return tomli.loads(file_text("pfnmap", "cli/examples.toml") or "")


def epilog(command: str) -> str | None:
    """Return the examples of a command as its help shows them, None where it has none."""
    found = examples().get(command)
    return "\n\n".join(["Examples:", *(f"  {line}" for line in found)]) if found else None
