"""``pfnmap plugins``: what is installed."""

from __future__ import annotations

import typer

from pfnmap.cli.options import JsonOption, Settings
from pfnmap.cli.terminal import print_json, show, styled, table

_STYLES = {"ok": "green", "broken": "bold red", "disabled": "dim", "ambiguous": "yellow"}


def command(context: typer.Context, json: JsonOption = False) -> int:
    """List every plugin that is installed, what it implements, and whether it works."""
    settings: Settings = context.obj
    registry = settings.registry()
    probed = [registry.probe(plugin) for plugin in registry.plugins()]
    if json:
        rows = [
            {
                "name": plugin.name,
                "kind": plugin.kind,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "hooks": hooks,
                "status": plugin.status,
                "reason": plugin.reason,
            }
            for plugin, hooks in probed
        ]
        print_json("plugins", {"plugins": rows})
        return 0
    if not probed:
        show("no plugin is installed; pip install 'pfnmap[all]' installs all of them")
        return 0
    show(
        table(
            ("name", "kind", "distribution", "version", "status", "implements"),
            [
                (
                    plugin.name,
                    plugin.kind,
                    plugin.distribution,
                    plugin.version,
                    styled(plugin.status, _STYLES[plugin.status]),
                    plugin.reason or f"{len(hooks)} hooks",
                )
                for plugin, hooks in probed
            ],
        )
    )
    return 0
