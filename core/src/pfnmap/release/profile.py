"""Profiles: files that say which changes a tree has (``PROFILE.toml``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pfnmap.errors import BadInput, Unknown
from pfnmap.output import write_whole
from pfnmap.release.facts import Facts
from pfnmap.release.names import named
from pfnmap.release.rules import STATUSES, Status

__all__ = ["read_profile", "write_profile"]

PROFILE_SCHEMA = "pfnmap-profile/1"


def write_profile(path: Path, changes: Mapping[str, Status], base: str | None = None, *, force: bool = True) -> None:
    """Write a profile, which `parse_release` reads: what a tree has, and the release it is based on if known.

    Raises BadInput where the file cannot be written, and unless `force` where it is there already.
    """
    import tomli_w

    profile: dict[str, Any] = {"schema": PROFILE_SCHEMA}
    if base is not None:
        profile["base"] = base
    profile["changes"] = dict(changes)
    write_whole(path, tomli_w.dumps(profile).encode(), force=force)


def read_profile(path: Path, known: Facts) -> tuple[str, dict[str, Status], tuple[str, ...]]:
    """Return name, changes and what is assumed of a profile.

    A change that it does not name is as in its base, or unknown. Raises BadInput for a file that is no profile and for
    a change that nobody here knows.
    """
    from pfnmap.host.bounded import MIB, read_toml

    where = str(path)
    profile = read_toml(path, MIB)
    for key in profile:
        if key not in ("schema", "base", "changes"):
            raise BadInput(where, str(Unknown("key", key, ("schema", "base", "changes"))))
    if profile.get("schema") != PROFILE_SCHEMA:
        raise BadInput(where, f"not a profile: schema = {PROFILE_SCHEMA!r} was expected")
    base, given = profile.get("base"), profile.get("changes")
    if not isinstance(given, dict):
        raise BadInput(where, "a table [changes] was expected")
    name = path.name
    assumed: tuple[str, ...] = ()
    changes: dict[str, Status] = dict.fromkeys(known.changes, "unknown")
    if base is not None:
        try:
            on, changes, assumed = named(base if isinstance(base, str) else "", known)
        except Unknown:
            raise BadInput(where, f"base = {base!r} is not a release such as '6.12.117'") from None
        name = f"{path.name} on {on}"
    for text, status in given.items():
        try:
            id = known.id_of(text)
        except Unknown as error:
            raise BadInput(where, str(error)) from None
        if status not in STATUSES:
            raise BadInput(where, f"changes.{text} = {status!r}: yes, no or unknown was expected")
        changes[id] = status
    return name, changes, assumed
