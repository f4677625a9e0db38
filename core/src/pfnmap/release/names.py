"""Names of releases, and which of the known changes what they name has.

* ``X.Y`` is X.Y.0; ``-rcN`` of it is unknown for what first came in X.Y.
* A distribution's ``uname -r`` that names the stable release (``6.12.117+deb12-amd64``, ``6.8.12-4-pve``) has what
  that has. One with an ABI number (``6.1.0-56-amd64``, ``6.8.0-40-generic``) does not name it: it has what all
  releases of the line have. An enterprise kernel (``5.14.0-503.el9.x86_64``) has what the release it started from has.
* Ubuntu's signature (/proc/version_signature: ``Ubuntu 6.14.0-37.37-generic 6.14.11``) names both: the kernel of that
  ``uname -r`` has what 6.14.11 has.
* ``uname -a`` and /proc/version (``Linux version 6.8.0-85-generic (...) ...``) have such a name in them, as have the
  names of packages (``linux-image-6.12.43+deb13-amd64``, ``kernel-core-6.17.7-300.fc43.x86_64``).
* Of the rest a distribution may have taken anything, unknown; what was never merged it has not. What is known of
  distributions is data (`pfnmap.changes.Flavour`): that their kernels are unpatched as far as the known changes
  go, then the rest is as in the stable release, or the line; and which changes they have beside.
* A tree of changes.toml (``posted-v2``): its base release, with and without what stands there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from pfnmap.changes import Change
from pfnmap.errors import Unknown
from pfnmap.offers import brought_by
from pfnmap.release.facts import Facts, Version, version
from pfnmap.release.rules import (
    Status,
    status,
    status_line,
    status_patched,
    status_patched_line,
    status_patched_rc,
    status_rc,
)

__all__ = ["named"]

_LONGEST = 128
"""Characters of a name; uname has 64."""

_NAME = re.compile(
    r"v?(?P<major>[0-9]{1,2})\.(?P<minor>[0-9]{1,2})(?:\.(?P<patch>[0-9]{1,4}))?"
    r"(?P<suffix>(?:\.\d+)?[-+~_]\S*)?"
)
_SIGNATURE = re.compile(r"Ubuntu (\d+\.\d+\.\d+-\d+)\.\S*?(-[a-z][\w-]*) (\d+\.\d+\.\d+)")
_UNAME = re.compile(r"Linux \S+ (\d+\.\d+\S*) .*")
_PACKAGE = re.compile(r"(?:linux|(?:proxmox-|pve-)?kernel)(?:-[a-z][a-z0-9]*|-64k)*-(\d+\.\d+\S*?)(?:-signed)?")
_RC = re.compile(r"[-~](?:\d+\.?)?rc([0-9]{1,4})")  # -rc3, ~rc3, Fedora's -0.rc3.<date>, Ubuntu's -061200rc3
_ENTERPRISE = re.compile(
    r"\.el\d"  # Red Hat and rebuilds, Oracle's uek
    r"|^-1[56]0\d00\."  # SUSE 15 and 16
    r"|\.(?:oe\d|an\d|al\d|ky\d)"  # openEuler, Anolis, Alibaba, Kylin
)
_ABI = re.compile(r"-(?!0\d{5}-)\d(?!.*\.fc\d)")
"""6.1.0-56-amd64, 6.8.0-40-generic; Fedora names the release, so do builds of mainline (6.14.0-061400-generic)."""


def named(text: str, known: Facts) -> tuple[str, dict[str, Status], tuple[str, ...]]:
    """Return name, changes and what is assumed of a tree, a release number, a uname -r or -a, or Ubuntu's signature.

    Raises Unknown for a release that there is not.
    """
    if tree := known.trees.get(text):
        _, changes, of_base = named(tree.base, known)
        changes.update(dict.fromkeys(tree.with_, "yes"))
        changes.update(dict.fromkeys(tree.without, "no"))
        return tree.name, changes, of_base
    text, base = _written(text)
    match = _NAME.fullmatch(text)
    if not match or len(text) > _LONGEST:
        raise Unknown("release", text, known.releases, by=brought_by(text, "tree"))
    release = version(base) if base else Version(int(match["major"]), int(match["minor"]), int(match["patch"] or 0))
    latest = known.newest
    # No line went past x.20 since 3.0: a typo of two digits should not pass for a kernel of the far future.
    if not 2 <= release.major <= latest.major + 1 or (release.major > 2 and release.minor > 20):
        raise Unknown("release", text, known.releases)
    flavours = [flavour for flavour in known.flavours if flavour.is_of(text)]
    unpatched = any(flavour.unpatched for flavour in flavours)
    name, rule, of_text = (
        (text, status_patched, f"is built on {release}{_added(unpatched)}")
        if base
        else _of_uname(text, release, match, unpatched)
    )
    assumed = [f"{text} {of_text}"] if of_text else []
    if release > latest:
        assumed.insert(0, f"{release} is newer than {latest}, the newest release looked at")
    elif release.line < known.oldest.line:
        assumed.insert(
            0, f"{release} is older than {known.oldest}, the oldest release looked at, and its code is not modelled"
        )
    changes = {id: rule(change, release, latest) for id, change in known.changes.items()}
    for flavour in flavours:
        if flavour.with_:
            changes.update(dict.fromkeys(_with_required(flavour.with_, known), "yes"))
            assumed.append(flavour.said)
    return name, changes, tuple(assumed)


def _written(text: str) -> tuple[str, str]:
    """Return the uname -r in a text, and the stable release that Ubuntu's signature names, "" elsewhere."""
    if uname := _UNAME.fullmatch(text):
        text = uname[1]
    elif package := _PACKAGE.fullmatch(text):
        text = package[1]
    if signature := _SIGNATURE.fullmatch(text):
        return signature[1] + signature[2], signature[3]
    return text, ""


def _added(unpatched: bool) -> str:
    return "" if unpatched else ", and what its distribution added is not known"


def _of_uname(
    text: str, release: Version, match: re.Match[str], unpatched: bool
) -> tuple[str, Callable[[Change, Version, Version], Status], str]:
    """Return what a uname -r is called, which rule tells its changes, and what of it is assumed, "" for nothing."""
    suffix, added = match["suffix"] or "", _added(unpatched)
    if rc := _RC.match(suffix):
        name = f"{release}-rc{rc[1]}"
        if unpatched or rc.end() == len(suffix):
            return name, status_rc, ""
        return name, status_patched_rc, f"is taken as {name}{added}"
    if _ENTERPRISE.search(suffix):
        return text, status_patched, f"is an enterprise kernel: it may have anything newer than {release}"
    if match["patch"] and release.patch == 0 and _ABI.match(suffix):
        rule = status_line if unpatched else status_patched_line
        return text, rule, f"does not tell which stable release of {release}.y it is{added}"
    if suffix:
        rule = status if unpatched else status_patched
        without = added or ", without further patches of the distribution"
        return str(release), rule, f"is taken as {release}{without}"
    return str(release), status, ""


def _with_required(ids: Iterable[str], known: Facts) -> set[str]:
    """Return changes with all that they require, at any remove."""
    found: set[str] = set()
    pending = list(ids)
    while pending:
        id = pending.pop()
        if id not in found:
            found.add(id)
            pending += known.changes[id].requires
    return found
