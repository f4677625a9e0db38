"""offers.toml: what this project's distributions bring, for the sentence that says which of them to install."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import tomli

from pfnmap.packages import file_text

__all__ = ["action_owners", "brought_by", "how_to_install", "plan_options"]


@cache
def _offers() -> Mapping[str, Mapping[str, str]]:
    return tomli.loads(file_text("pfnmap", "offers.toml") or "")


def how_to_install(name: str, *kinds: str) -> str:
    """Return how to get a plugin of this project, of one of the kinds: ``pip install pfnmap-kvm``; empty for others."""
    offers = _offers()
    found = next((offers[kind][name] for kind in kinds if name in offers.get(kind, ())), None)
    return f"pip install {found}" if found else ""


def brought_by(name: str, kind: str) -> str:
    """Return which distribution of this project brings a change, a tree or a symbol, "" for what none does."""
    return _offers()[kind].get(name, "")


def plan_options() -> Mapping[str, str]:
    """Return the options of ``plan`` that drivers of this project bring, without dashes, and which driver each."""
    return _offers()["plan_option"]


def action_owners() -> Mapping[str, str]:
    """Return the ops of recordings that are actions of this project's plugins, and which plugin each is of."""
    return _offers()["action"]
