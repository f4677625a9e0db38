"""pfnmap: an executable model of Linux huge pfnmaps."""

from pfnmap.arch import Arch, Entry, Geometry, Level, WalkLevel
from pfnmap.errors import BadInput, LinkError, PfnmapError, PluginError, Refused, Unknown
from pfnmap.hookspecs import hookimpl

__all__ = [
    "Arch",
    "BadInput",
    "Entry",
    "Geometry",
    "Level",
    "LinkError",
    "PfnmapError",
    "PluginError",
    "Refused",
    "Unknown",
    "WalkLevel",
    "hookimpl",
]
