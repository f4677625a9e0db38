"""Where mappings go: at a given address, by one of the two core policies, or as a VMM's plugin says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING

from pfnmap.contract.placement import Area, Placed, Unmapped, Vmm
from pfnmap.contract.plan import Request
from pfnmap.errors import BadInput, NotInstalled, PluginError, Unknown, nearest
from pfnmap.offers import how_to_install
from pfnmap.plan.policies import POLICIES
from pfnmap.plan.space import Space, no_room, whole
from pfnmap.plugins import calling
from pfnmap.records import replace
from pfnmap.sizes import format_size

if TYPE_CHECKING:
    from pfnmap.plugins import Registry

__all__ = ["known_vmms", "most_general", "place", "vmm_class", "vmm_named"]

_VERSION = re.compile(r"-v?(?=\d)")
_PACKAGE = re.compile(r"(?:[-_]|:? )v?(?=\d)")
_SPACE = re.compile(r" v?(?=\d)")
_PROGRAM = re.compile(r"[\w-]+")
_BANNER = re.compile(r"(\S+)(?: \S+)* version (\d\S*)(?: \((.+)\))?")


@lru_cache(maxsize=64)  # a fleet is planned with few of them
def vmm_named(text: str, registry: Registry, options: tuple[str, ...] = (), *, newest: bool = False) -> Vmm:
    """Return the placement policy that a text means, with its version.

    ``NAME`` or ``NAME-VERSION`` (or ``NAME-vVERSION``), where ``-`` and ``_`` in names are the same; what a package is
    called (``NAME_VERSION``, ``NAME: VERSION``); and what a program says of itself (``NAME vVERSION``, ``NAME ...
    version VERSION (PACKAGE)``), where the package counts if it is known. A name that is no plugin's may be that of a
    program or a package which plugins know (``qemu-system-x86 1:8.2.2+ds-0ubuntu1``). `newest`: a version newer than
    what is known is taken for the newest known.

    Raises Unknown for a name or a version that nobody knows, PluginError for a plugin that cannot be used, BadInput for
    an option that it does not take.
    """
    found = vmm_class(text, registry)
    with calling(found.name, "__init__()") as gave:
        return gave(found(_meant(text, registry)[1], options, newest=newest), found)


@lru_cache(maxsize=64)
def vmm_class(text: str, registry: Registry) -> type[Vmm]:
    """Return the class of the placement policy that a text means. Raises as `vmm_named` does."""
    name, _ = _meant(text, registry)
    if name is None:
        said = _VERSION.split(text, maxsplit=1)[0]
        if hint := how_to_install(said.replace("-", "_"), "vmm"):
            raise NotInstalled("placement policy", said, hint)
        names = registry.names("vmm")
        raise Unknown("placement policy", text, names, every=not nearest(text, names))
    found: type[Vmm] = registry.load("vmm", name)
    return found


def _meant(text: str, registry: Registry) -> tuple[str | None, str]:
    """Return the plugin that a text names, None where it names none, and the version in it, empty for none."""
    plugins = {plugin.name.replace("-", "_"): plugin.name for plugin in registry.plugins("vmm")}
    candidates = [_VERSION.split(text, maxsplit=1), _PACKAGE.split(text.lower(), maxsplit=1)]
    if banner := _BANNER.fullmatch(text):
        name, version, package = banner.groups()
        candidates = [_PACKAGE.split(package or "", maxsplit=1), [name.lower(), version]]
    for name, *version in candidates:
        if found := plugins.get(name.replace("-", "_")):
            return found, "".join(version)
    program, *after = _SPACE.split(text.lower(), maxsplit=1)
    package, *version = candidates[-1]
    programs = _known_as(registry, lambda vmm: any(fnmatchcase(program, one) for one in vmm.executables))
    if programs and _PROGRAM.fullmatch(program):
        return programs, "".join(after)
    return _known_as(registry, lambda vmm: package in vmm.packages), "".join(version)


def known_vmms(registry: Registry) -> dict[str, type[Vmm]]:
    """Return the classes of the VMMs that can be used, by plugin name."""
    found = {}
    for name in registry.names("vmm"):
        with suppress(PluginError):  # `pfnmap plugins` tells of it
            found[name] = registry.load("vmm", name)
    return found


def most_general(claims: Mapping[str, type[Vmm]]) -> str | None:
    """Return the one of several VMMs whose class the others derive from, None where there is none."""
    return next((name for name, vmm in claims.items() if all(issubclass(one, vmm) for one in claims.values())), None)


def _known_as(registry: Registry, claims: Callable[[type[Vmm]], bool]) -> str | None:
    """Return the plugin that claims a program or a package; of several the most general one."""
    return most_general({name: vmm for name, vmm in known_vmms(registry).items() if claims(vmm)})


def place(
    space: Space, requests: Sequence[Request], policies: Mapping[str, Vmm], refused: Sequence[str]
) -> list[Placed]:
    """Return where each request goes: at its own address, or where its policy puts it among all that it places.

    `refused`: why a request cannot be mapped, or empty; a VMM maps no such BAR. Raises BadInput for an address that
    cannot be and for a request with neither, PluginError for a policy that does not answer every request.
    """
    placed: dict[int, Placed] = {}
    groups: dict[str, list[int]] = {}
    for n, (request, why) in enumerate(zip(requests, refused, strict=True)):
        if request.va is not None:
            placed[n] = _at(request, request.va)
        elif request.policy is None:
            raise BadInput(request.where, "neither an address nor a placement policy is given")
        elif why and policies[request.policy].name not in POLICIES:
            placed[n] = Placed((), slots=(), dma=(), unmapped=(Unmapped(0, request.bar_size, why),))
        else:
            if request.offset and policies[request.policy].name not in POLICIES:
                raise BadInput(request.where, f"{request.policy} maps whole BARs, and this begins at an offset")
            groups.setdefault(request.policy, []).append(n)
    for name, members in groups.items():
        policy = policies[name]
        with calling(policy.name, "place()") as gave:
            answers = gave(list(policy.place(space, [requests[n] for n in members])), list[Placed])
        if len(answers) != len(members):
            raise PluginError(policy.name, f"place() gave {len(answers)} answers for {len(members)} requests")
        said = (policy.assumed,) if policy.assumed else ()
        for n, one in zip(members, answers, strict=True):
            placed[n] = replace(one, notes=(*said, *one.notes)) if said else one
    for n, request in enumerate(requests):
        for area in placed[n].areas:
            _check(space, request, area)
    return [placed[n] for n in range(len(requests))]


def _at(request: Request, va: int) -> Placed:
    span = whole(request)
    return Placed((Area(span.offset, span.length, va, 1, congruent=False),))


def _check(space: Space, request: Request, area: Area) -> None:
    """Refuse an area that mmap would refuse there."""
    if area.va % space.page:
        page = format_size(space.page)
        raise BadInput(request.where, f"VA {area.va:#x} is not a multiple of the {page} page: mmap gives EINVAL")
    if area.va < 0 or area.va + area.length > space.task_size:
        raise no_room(request, area.length, f"not at VA {area.va:#x}", space.task_size)
