"""Every two changes, one there and the other not: such a kernel is linked, runs a scenario and is planned on, or it is
refused by name.

What a kernel asks for when it is linked, run and planned on is found first, and pairs of those alone differ for it. The
suite tries some of them on each architecture; ``python tests/test_change_pairs.py [ARCH...]`` tries all.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import permutations

import pytest

from pfnmap import PfnmapError, PluginError
from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.plan import Request, plan
from pfnmap.plugins import Registry
from pfnmap.release import Facts, facts, parse_release
from pfnmap.run import Run

REGISTRY = Registry()
ARCHS = REGISTRY.names("arch")
BASES = ("6.1.170", "6.12.117", "7.3.4")
"""Releases that lack most of the changes, and that have most."""
SIZE = 4 << 20
SOME = 12


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


def linked(arch: str, base: str, with_: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> Kernel:
    release = parse_release(base, with_, without, known())
    return Kernel.link(arch, ["vfio_pci", "pci_sysfs", "nvgrace_gpu", "kvm"], release=release, registry=REGISTRY)


@cache
def asked(arch: str) -> tuple[str, ...]:
    """The changes that a kernel of an architecture asks for when it is linked and used."""
    ids: set[str] = set()
    for base in BASES:
        kernel = linked(arch, base)
        changes = Asked(kernel.release.changes)
        used(replace(kernel, release=replace(kernel.release, changes=changes)))
        ids |= kernel.asked | changes.ids
    return tuple(sorted(id for id in ids if known().changes[id].modelled))


def tried(arch: str, base: str, one: str, other: str) -> str:
    """Try a kernel with a change and without another; return what came of it. Raises what is no answer."""
    try:
        used(linked(arch, base, (one,), (other,)))
    except PfnmapError as error:
        if isinstance(error, PluginError):
            raise
        return type(error).__name__
    return "ok"


@pytest.mark.parametrize("arch", ARCHS)
def test_any_two_changes_one_there_and_the_other_not_make_a_kernel_or_are_refused(arch: str):
    pairs = [(base, *pair) for base in BASES for pair in permutations(asked(arch), 2)]
    came = Counter(tried(arch, *pair) for pair in random.Random(arch).sample(pairs, SOME))
    assert came["ok"]


@pytest.mark.parametrize("base", BASES)
def test_huge_faults_where_vm_pgoff_is_the_pfn_cannot_be_linked(base: str):
    assert tried("x86_64", base, "huge-pfnmap", "vfio-unmap-mapping-range") == "LinkError"


if __name__ == "__main__":
    for name in sys.argv[1:] or ARCHS:
        results = Counter[str]()
        for release in BASES:
            for pair in permutations(asked(name), 2):
                try:
                    results[tried(name, release, *pair)] += 1
                except Exception as failure:
                    results["failed"] += 1
                    print(name, release, *pair, repr(failure)[:200])
        print(name, len(asked(name)), dict(results), flush=True)
