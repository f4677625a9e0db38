"""Plugins: discovery through entry points, what of them may be used, and the boundary through which they are called."""

from pfnmap.boundary import Gave, blamed, calling, in_plugin, interrupt, may_pass, said
from pfnmap.plugins.discovery import KINDS, Kind, Plugin
from pfnmap.plugins.reasons import NO_VMM, why_not_linked, why_unusable
from pfnmap.plugins.registry import Offer, Registry, environment, implemented_hooks, offer

__all__ = [
    "KINDS",
    "NO_VMM",
    "Gave",
    "Kind",
    "Offer",
    "Plugin",
    "Registry",
    "blamed",
    "calling",
    "environment",
    "implemented_hooks",
    "in_plugin",
    "interrupt",
    "may_pass",
    "offer",
    "said",
    "why_not_linked",
    "why_unusable",
]
