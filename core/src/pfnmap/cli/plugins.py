"""``pfnmap plugins``: what is installed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from pfnmap.cli.options import JsonOption, Settings
from pfnmap.cli.terminal import print_json, show, styled, table
from pfnmap.errors import PfnmapError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pfnmap.plugins import Kind, Offer, Plugin, Registry

_STYLES = {"ok": "green", "broken": "bold red", "disabled": "dim", "ambiguous": "yellow"}


def command(context: typer.Context, json: JsonOption = False) -> int:
    """List every plugin that is installed, what it provides and calls, and whether it works."""
    from pfnmap.trial import failures

    settings: Settings = context.obj
    registry = settings.registry
    failed = failures(registry)
    probed = [_probed(registry, plugin, failed) for plugin in registry.plugins()]
    if json:
        rows = [
            {
                "name": plugin.name,
                "kind": plugin.kind,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "hooks": hooks,
                "provides": list(offered.provides),
                "consumes": list(offered.consumes),
                "actions": list(offered.actions),
                "status": plugin.status,
                "reason": plugin.reason,
            }
            for plugin, hooks, offered in probed
        ]
        print_json("plugins", {"plugins": rows})
        return 0
    if all(plugin.kind == "command" for plugin, _, _ in probed):
        show("no plugin but for commands is installed; pip install 'pfnmap[all]' installs all of them", "")
    show(
        table(
            ("name", "kind", "distribution", "version", "status", "provides", "calls of the mm core"),
            [
                (
                    plugin.name,
                    plugin.kind,
                    plugin.distribution,
                    plugin.version,
                    styled(plugin.status, _STYLES[plugin.status]),
                    plugin.reason or _provided(hooks, offered),
                    ", ".join(offered.consumes),
                )
                for plugin, hooks, offered in probed
            ],
        )
    )
    return 0


def _probed(
    registry: Registry, plugin: Plugin, failures: Mapping[tuple[Kind, str], PfnmapError]
) -> tuple[Plugin, list[str], Offer]:
    """Return a plugin with its status, its hooks, and what it offers."""
    from pfnmap.cli.commands import command_of
    from pfnmap.plugins import Offer, offer

    if plugin.of_core:  # the core's own are no news
        return plugin, [], Offer()
    plugin, hooks = registry.probe(plugin)
    if plugin.status != "ok":
        return plugin, hooks, Offer()
    try:
        if failed := failures.get((plugin.kind, plugin.name)):
            raise failed
        if plugin.kind == "command":
            command_of(registry, plugin.name)
        return plugin, hooks, offer(registry.load(plugin.kind, plugin.name))
    except PfnmapError as error:
        return replace(plugin, status="broken", reason=getattr(error, "what", str(error))), hooks, Offer()


def _provided(hooks: list[str], offered: Offer) -> str:
    """What a plugin provides: functions by name, hooks and actions by number."""
    counted = ((len(hooks), "hook"), (len(offered.actions), "action"))
    numbers = [f"{number} {what}{'' if number == 1 else 's'}" for number, what in counted if number]
    return ", ".join((*offered.provides, *numbers))
