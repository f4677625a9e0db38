"""How the tests of all programs ask: a device's BARs by one policy on one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from pfnmap.contract.region import Msix, Span
from pfnmap.kernel import Kernel
from pfnmap.plan import MappingPlan, Request, plan

__all__ = ["ask", "linked"]

PHYS = 0x80_0000_0000


@cache
def linked(release: str, arch: str = "x86_64", pages: str = "", thp: str = "always") -> Kernel:
    """A kernel with THP; `pages` is the symbol of its page size."""
    given = {pages: "y"} if pages else {}
    defaults = {"TRANSPARENT_HUGEPAGE": "y", "VFIO_PCI": "y"}
    return Kernel.link(arch, ["vfio_pci", "kvm"], given=given, defaults=defaults, release=release, thp=thp)


def ask(
    policy: str,
    *bars: int | tuple[int, int],
    msix: Msix | None = None,
    sparse: Sequence[Span] = (),
    kernel: Kernel | None = None,
    release: str = "7.3.4",
    options: Sequence[str] = (),
    hypervisor: str | None = None,
    **said: Any,
) -> list[MappingPlan]:
    """Plan BARs of one device, given as sizes or as (index, size), by one policy."""
    requests, start = [], PHYS
    for n, bar in enumerate(bars):
        index, size = bar if isinstance(bar, tuple) else (n, bar)
        phys = -(-start // size) * size
        start = phys + size
        place = {"device": "0000:3b:00.0", "policy": policy, "msix": msix, "sparse": tuple(sparse)}
        requests.append(Request(index, phys, size, **{**place, **said}))
    kernel = kernel or linked(release)
    return list(plan(kernel, requests, vmm_options=options, hypervisor=hypervisor).mappings)
