"""Whether the plugins that are installed work: each is linked and booted, as far as that needs no question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from pfnmap.boundary import calling
from pfnmap.contract.defaults import DEFAULT_ARCH
from pfnmap.contract.step import Action
from pfnmap.errors import PfnmapError, Unwritten
from pfnmap.kernel import Kernel
from pfnmap.mm.boot import boot
from pfnmap.plugins import Kind, Registry
from pfnmap.spec import with_drivers

__all__ = ["failures"]


def failures(registry: Registry) -> dict[tuple[Kind, str], PfnmapError]:
    """Return what fails of the plugins that may be used, by kind and name."""
    found: dict[tuple[Kind, str], PfnmapError] = {}
    kernels: dict[str, Kernel] = {}
    for name in registry.names("arch"):
        try:
            kernels[name] = Kernel.link(name, registry=registry)
            kernels[name].try_ops()
            boot(kernels[name])
        except Unwritten:  # a new package, whose author is not there yet
            continue
        except PfnmapError as error:
            found["arch", name] = error
    works = [name for name in (DEFAULT_ARCH, *kernels) if name in kernels and ("arch", name) not in found]
    if works:
        found |= {("driver", name): error for name, error in _of_drivers(works[0], registry)}
    others: tuple[Kind, ...] = ("vmm", "recording")
    for kind in others:
        for name in registry.names(kind):
            try:
                with calling(name, "__init__()"):
                    registry.load(kind, name)()
            except PfnmapError as error:
                found[kind, name] = error
    return found


def _of_drivers(arch: str, registry: Registry) -> Iterator[tuple[str, PfnmapError]]:
    """Yield the drivers that fail when they are linked with an architecture and booted."""
    kernel, left_out = with_drivers(partial(Kernel.link, arch, registry=registry), registry.names("driver"))
    yield from left_out.items()
    machine = boot(kernel)
    yield from machine.left_out.items()
    for name, module in machine.modules.items():
        try:
            with calling(name, "actions()") as gave:
                gave(module.actions(), Mapping[str, Action])
        except PfnmapError as error:
            yield name, error
