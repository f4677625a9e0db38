"""Every two changes, one there and the other not: such a kernel is linked, runs a scenario and is planned on, or it is
refused by name.

What a kernel asks for when it is linked, run and planned on is found first, and pairs of those alone differ for it. Of
the pairs that come to the same changes, such as all that a release has as it is, one is tried. The suite tries some of
them on each architecture; ``python tests/test_change_pairs.py [ARCH...]`` tries all, in about two minutes.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import permutations

import pytest

from pfnmap import LinkError, PfnmapError, PluginError
from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.plan import Request, plan
from pfnmap.plugins import Registry
from pfnmap.release import Facts, Release, facts, parse_release
from pfnmap.run import Run

REGISTRY = Registry()
ARCHS = REGISTRY.names("arch")
BASES = ("6.1.170", "6.12.117", "7.3.4")
"""Releases that lack most of the changes, and that have most."""
SIZE = 4 << 20
SOME = 6


@cache
def known() -> Facts:
    return facts(REGISTRY)


class Asked(dict[str, str]):
    """The changes of a release; keeps which were asked for by their ids."""

    def __init__(self, changes: Mapping[str, str]) -> None:
        super().__init__(changes)
        self.ids = set[str]()

    def __getitem__(self, id: str) -> str:
        self.ids.add(id)
        return super().__getitem__(id)


def used(kernel: Kernel) -> None:
    """Run a small scenario on a kernel, and plan on it."""
    drivers = {"vfio_pci": 0, "pci_sysfs": 0, "nvgrace_gpu": 4}
    devices = [
        Device(name, f"0000:00:0{n}.0", {bar: DeviceBar(bar, SIZE, n << 32)}, driver=name)
        for n, (name, bar) in enumerate(drivers.items(), 1)
    ]
    run = Run(kernel, devices)
    for n, (name, bar) in enumerate(drivers.items()):
        where = {"addr": hex(0x1000000000 + (n << 30)), "fixed": True, "id": name}
        mapping = {"device": name, "bar": bar, "length": SIZE, "prot": "rw", "shared": True}
        for op, arguments in (
            ("mmap", {**mapping, **where}),
            ("touch", {"va": name, "access": "read"}),
            ("touch", {"va": f"{name}+0x201000", "access": "write"}),
            ("mprotect", {"addr": name, "length": SIZE // 2, "prot": "r"}),
            ("munmap", {"addr": name, "length": SIZE}),
        ):
            result = run.step(Step(op, arguments, where=op)).result
            if run.oops:
                return
            if (op, result) != ("mmap", "ok") and name not in run.names:
                break  # there are no such files
    requests = [
        Request(bar, n << 32, SIZE, policy="kernel", driver=name) for n, (name, bar) in enumerate(drivers.items(), 1)
    ]
    plan(kernel, requests, registry=REGISTRY)


def linked(arch: str, release: Release) -> Kernel:
    return Kernel.link(arch, ["vfio_pci", "pci_sysfs", "nvgrace_gpu", "kvm"], release=release, registry=REGISTRY)


@cache
def asked(arch: str) -> tuple[str, ...]:
    """The changes about an architecture that its kernels ask for when they are linked and used."""
    ids: set[str] = set()
    for base in BASES:
        kernel = linked(arch, parse_release(base, known=known()))
        changes = Asked(kernel.release.changes)
        used(replace(kernel, release=replace(kernel.release, changes=changes)))
        ids |= kernel.asked | changes.ids
    return tuple(
        sorted(
            id for id in ids if (change := known().changes[id]).modelled and (not change.arch or arch in change.arch)
        )
    )


def paired(arch: str) -> Iterator[Release | str]:
    """Yield the release of each pair of changes, and what refuses a pair by name."""
    for base in BASES:
        found = set[frozenset[tuple[str, str]]]()
        for one, other in permutations(asked(arch), 2):
            try:
                release = parse_release(base, (one,), (other,), known())
            except PfnmapError as error:
                yield type(error).__name__
                continue
            changes = frozenset(release.changes.items())
            if changes not in found:
                found.add(changes)
                yield release


def tried(arch: str, release: Release) -> str:
    """Try a kernel of a release; return what came of it. Raises what is no answer."""
    try:
        used(linked(arch, release))
    except PluginError:
        raise
    except PfnmapError as error:
        return type(error).__name__
    return "ok"


@pytest.mark.parametrize("arch", ARCHS)
def test_any_two_changes_one_there_and_the_other_not_make_a_kernel_or_are_refused(arch: str):
    releases = [release for release in paired(arch) if isinstance(release, Release)]
    came = Counter(tried(arch, release) for release in random.Random(arch).sample(releases, SOME))
    assert came["ok"]


@pytest.mark.parametrize("base", BASES)
def test_huge_faults_where_vm_pgoff_is_the_pfn_cannot_be_linked(base: str):
    with pytest.raises(LinkError, match="'huge-pfnmap' requires 'vfio-unmap-mapping-range'"):
        parse_release(base, ("huge-pfnmap",), ("vfio-unmap-mapping-range",), known())


if __name__ == "__main__":
    for name in sys.argv[1:] or ARCHS:
        results = Counter[str]()
        for release in paired(name):
            if isinstance(release, str):
                results[release] += 1
                continue
            try:
                results[tried(name, release)] += 1
            except Exception as failure:
                results["failed"] += 1
                print(name, release.name, sorted(release.settled), repr(failure)[:200])
        print(name, len(asked(name)), dict(results), flush=True)
