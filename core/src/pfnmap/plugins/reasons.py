"""Why a plugin is not there, in words, and which distribution brings it."""

from __future__ import annotations

from typing import Final

from pfnmap.errors import PluginError, nearest
from pfnmap.offers import how_to_install
from pfnmap.plugins.discovery import Kind
from pfnmap.plugins.registry import WORDS, Registry, environment, missing

__all__ = ["NO_VMM", "why_not_linked", "why_unusable"]


NO_VMM: Final = "no VMM is installed; pip install pfnmap-vmms"


def why_not_linked(name: str, arch: str) -> str:
    """Say why a kernel of architecture `arch` has no plugin of that name: a clause such as "which is not installed"."""
    installed = [p for p in environment().plugins() if p.kind in ("arch", "driver")]
    found = [p for p in installed if p.name == name]
    if not found:
        hint = f"; {hint}" if (hint := how_to_install(name, "driver", "arch")) else ""
        return f"which is not installed{hint or nearest(name, (p.name for p in installed))}"
    if found[0].status != "ok":
        return f"which is {found[0].status}: {found[0].reason}"
    if found[0].kind == "arch":
        return f"which is another architecture than {arch}"
    return "which is not linked"


def why_unusable(registry: Registry, kind: Kind, name: str) -> str:
    """Say in a sentence why a plugin cannot be used, and which distribution brings it; empty where it can."""
    found = [p for p in registry.plugins(kind) if p.name == name]
    if not found:
        return str(missing(kind, name, registry.names(kind)))
    usable = [p for p in found if p.status == "ok"]
    whose = f"{WORDS[kind]} {name} of {' and '.join(p.distribution for p in usable or found)}"
    if not usable:
        return f"{whose} is {found[0].status}: {found[0].reason}"
    try:
        registry.load(kind, name)
    except PluginError as error:
        return f"{whose} is broken: {error.what}"
    return ""
