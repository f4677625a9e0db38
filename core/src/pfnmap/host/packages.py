"""Which version of a package is installed, by dpkg's status file (deb-control(5): paragraphs of "Field: value")."""

from __future__ import annotations

from collections.abc import Collection

from pfnmap.host.bounded import MIB
from pfnmap.host.tree import Tree

__all__ = ["DPKG_STATUS", "installed"]

DPKG_STATUS = "/var/lib/dpkg/status"
_LIMIT = 64 * MIB


def installed(tree: Tree, names: Collection[str]) -> dict[str, str]:
    """Return the versions of those of some packages that are installed. Raises OSError without dpkg's file."""
    found = {}
    for paragraph in tree.text(DPKG_STATUS, _LIMIT).split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in paragraph.splitlines() if line[:1] not in ("", " ", "\t"))
        if fields.get("Package") in names and fields.get("Status", "").endswith(" installed") and "Version" in fields:
            found[fields["Package"]] = fields["Version"]
    return found
