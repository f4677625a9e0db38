"""What `ratios.py` measures: pairs of CPU seconds, of a piece of work and of its peer, at three sizes each."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import volatility

from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.host.bounded import MIB, read_json
from pfnmap.kernel import Kernel
from pfnmap.mm.fault import user_access
from pfnmap.mm.leaves import leaves
from pfnmap.plan import Request, plan
from pfnmap.plugins import Registry
from pfnmap.replay import replay
from pfnmap.run import Run
from pfnmap.scenario import read_recording
from pfnmap.spec import KernelSpec
from pfnmap.testing.vectors import check_vectors, machine_of, parse_vectors

__all__ = ["MEASURES", "Measure"]

GIB = 1 << 30
PAGE = 4096
VA = 0x100000000000
PHYS = 0x8000000000
RECORDINGS = Path(__file__).parents[1] / "tests" / "data" / "recordings"
VECTORS = Path(__file__).parents[1] / "plugins" / "x86_64" / "tests" / "data"
WALKED = {"1G": GIB, "4G": 4 * GIB, "16G": 16 * GIB}
HUGE = {"128G": 128 * GIB, "1T": 1 << 40, "8T": 8 << 40}
BARS = {"1G": GIB, "16G": 16 * GIB, "128G": 128 * GIB}


@dataclass(frozen=True)
class Measure:
    """`seconds(size)`: CPU seconds of the work and of its peer, once; `aim`: the ratio to reach; `lacks`: why it
    cannot be measured here."""

    name: str
    text: str
    sizes: dict[str, int]
    seconds: Callable[[int], tuple[float, float]]
    aim: float
    at_most: bool = True
    lacks: str = ""


def cpu(work: Callable[[], object]) -> float:
    """Return the CPU seconds of a call. Machines of before are gone: their memory is not kept from the next."""
    gc.collect()
    start = time.process_time()
    work()
    return time.process_time() - start


@cache
def kernel(release: str = "6.12.117") -> Kernel:
    """Link a kernel, once for all measures."""
    return KernelSpec(release=release).link()


def mapped(size: int, shift: int, release: str = "6.12.117") -> Run:
    """Boot a machine with a BAR of `size` bytes that is mapped `shift` bytes above what huge leaves need."""
    device = Device("gpu", "0000:3b:00.0", {2: DeviceBar(2, size, PHYS)})
    run = Run(kernel(release), [device])
    at = {"device": "gpu", "bar": 2, "length": size, "addr": VA + shift, "fixed": True}
    run.step(Step("mmap", {**at, "prot": "rw", "shared": True, "id": "m"}))
    return run


# faults


def scalar(pages: int) -> tuple[float, float]:
    """Touch pages one by one, against storing an entry for each in a dict."""
    run = mapped(pages * PAGE, PAGE)
    start = VA + PAGE

    def touch() -> None:
        for address in range(start, start + pages * PAGE, PAGE):
            user_access(run.parent, address, False)

    def store() -> None:
        table: dict[int, int] = {}
        for page in range(pages):
            table[page] = PHYS + (page << 12) | 0x237

    return cpu(touch), cpu(store)


def touching(size: int, leaf: int = PAGE) -> tuple[float, float]:
    """Touch every 4K page of a BAR, each a fault of its own, against computing and filling as many words."""
    shift = leaf if leaf < GIB else 0
    run = mapped(size, shift)
    touch = Step("touch", {"va": VA + shift, "length": size, "access": "read"})
    work = cpu(lambda: run.step(touch))
    index = np.arange(size // leaf, dtype=np.uint64)
    words = np.zeros_like(index)

    def fill() -> None:
        np.add(index, PHYS // PAGE, out=words)
        np.left_shift(words, 12, out=words)
        np.bitwise_or(words, 0x237, out=words)

    fill()
    return work, cpu(fill)


def touching_pmds(size: int) -> tuple[float, float]:
    """Touch every page of a BAR that is mapped with 2M entries, a fault each, against filling as many words."""
    return touching(size, 2 << 20)


def touching_puds(size: int) -> tuple[float, float]:
    """Touch every page of a BAR that is mapped with 1G entries, a fault each, against filling as many words."""
    return touching(size, GIB)


def mapping_cold(size: int) -> tuple[float, float]:
    """A device gets all of a BAR of which nothing is mapped: a look-up, a fault and a look-up for each 4K page (6.12),
    against copying as many bytes."""
    run = mapped(size, PAGE)
    step = Step("dma_map", {**DMA(size), "va": VA + PAGE})
    old = np.ones(size // PAGE, dtype=np.uint64)
    new = np.zeros_like(old)
    return cpu(lambda: run.step(step)), cpu(lambda: np.copyto(new, old))


def filled(size: int) -> Run:
    """A machine with 6.1, which fills a BAR with 4K entries at the first touch."""
    run = mapped(size, 0, "6.1.192")
    run.step(Step("touch", {"va": VA, "access": "read"}))
    return run


def whole(size: int, op: str, **arguments: Any) -> tuple[float, float]:
    """Do something to all of a BAR that is mapped with 4K entries, against copying as many bytes."""
    run = mapped(size, 0, "6.1.192") if op == "touch" else filled(size)
    if op == "dma_unmap":
        run.step(Step("dma_map", DMA(size)))
    work = cpu(lambda: run.step(Step(op, arguments)))
    old = np.ones(size // PAGE, dtype=np.uint64)
    new = np.zeros_like(old)
    np.copyto(new, old)
    return work, cpu(lambda: np.copyto(new, old))


def wholly(op: str, arguments: Callable[[int], dict[str, Any]]) -> Callable[[int], tuple[float, float]]:
    """Return `whole` of a step."""
    return lambda size: whole(size, op, **arguments(size))


def walked(size: int) -> tuple[Run, list[int]]:
    """A BAR that is mapped with 4K entries, and addresses in it."""
    return filled(size), random_pages(size)


def random_pages(size: int) -> list[int]:
    """Addresses of pages in any order."""
    addresses: list[int] = (VA + PAGE * np.random.default_rng(0).integers(0, size // PAGE, 1 << 15)).tolist()
    return addresses


def walking(size: int) -> tuple[float, float]:
    """Walk to addresses one by one, against volatility3's Intel layer over the same tables."""
    run, addresses = walked(size)
    layer, leaf = volatility.intel_layer(run.parent), run.parent.tables.leaf
    for one in addresses:  # both have been everywhere before
        assert leaf(one) is not None
        assert layer._translate(one)[0] == PHYS + one - VA
    return cpu(lambda: [leaf(one) for one in addresses]), cpu(lambda: [layer._translate(one) for one in addresses])


def following(size: int) -> tuple[float, float]:
    """follow_pfnmap_start and _end of addresses, against the walk to them."""
    run = mapped(size, PAGE)
    run.step(Step("touch", {"va": VA + PAGE, "length": size, "access": "read"}))
    addresses = [one + PAGE for one in random_pages(size)]
    vma = run.parent.vma_lookup(VA + PAGE)
    mm = run.machine.mm

    def follow() -> None:
        for one in addresses:
            args = mm.FollowPfnmapArgs(vma, one)
            mm.follow_pfnmap_start(args)
            mm.follow_pfnmap_end(args)

    leaf = run.parent.tables.leaf
    with mm.mmap_lock(run.parent):
        return cpu(follow), cpu(lambda: [leaf(one) for one in addresses])


def walking_arrays(size: int) -> tuple[float, float]:
    """Walk to an array of as many addresses as there are pages, against as many one by one (a part is, scaled)."""
    run, addresses = walked(size)
    many = np.random.default_rng(1).permutation(np.arange(VA, VA + size, PAGE, dtype=np.uint64))
    leaf = run.parent.tables.leaf
    one_by_one = cpu(lambda: [leaf(one) for one in addresses]) * len(many) / len(addresses)
    return cpu(lambda: leaves(run.parent, many)), one_by_one


def planning(requests: int) -> tuple[float, float]:
    """Plan requests that all differ, against parsing their JSON."""
    asked = [
        {"phys": PHYS + n * (1 << 32), "va": VA + n * (1 << 32) + (n % 3) * PAGE, "size": (1 << 30) + n * 8 * PAGE}
        for n in range(requests)
    ]
    lines = [json.dumps(one) for one in asked]
    linked, registry = kernel(), Registry()

    def work() -> None:
        for one in asked:
            plan(linked, [Request(0, one["phys"], one["size"], va=one["va"])], registry=registry)

    return cpu(work), cpu(lambda: [json.loads(line) for line in lines])


def planning_alike(requests: int) -> tuple[float, float]:
    """Plan BARs of the sizes that devices have, each at another multiple of its size, as QEMU places them, against
    parsing their JSON."""
    sizes = (1 << 14, 1 << 24, 1 << 25, 1 << 36, 1 << 37)
    asked = [{"phys": sizes[n % 5] * (n + 1), "vmm": "qemu-9.2", "size": sizes[n % 5]} for n in range(requests)]
    lines = [json.dumps(one) for one in asked]
    linked, registry = replace(kernel()), Registry()  # which has planned nothing yet

    def work() -> None:
        for one in asked:
            plan(linked, [Request(0, one["phys"], one["size"], policy=one["vmm"])], registry=registry)

    return cpu(work), cpu(lambda: [json.loads(line) for line in lines])


def replaying(files: int) -> tuple[float, float]:
    """Replay recordings, against parsing their JSON."""
    paths = sorted(RECORDINGS.glob("x86_64-4k-6.*.json.gz"))[:files]
    recordings = [read_recording(path) for path in paths]
    texts = [json.dumps(read_json(path, 64 * MIB)) for path in paths]
    return cpu(lambda: [replay(one) for one in recordings]), cpu(lambda: [json.loads(text) for text in texts])


AT = {"va": VA, "access": "read"}
DECODE = {"device": "gpu", "enabled": False}


def ALL(size: int, **more: Any) -> dict[str, Any]:
    return {"addr": VA, "length": size, **more}


def DMA(size: int) -> dict[str, Any]:
    return {"iova": 0, "va": VA, "length": size, "prot": "rw"}


def moved(size: int) -> dict[str, Any]:
    flags = ["MAYMOVE", "FIXED"]
    return {"addr": VA, "old_len": size, "new_len": size, "new_addr": VA + (1 << 44) + PAGE, "flags": flags}


def checking(files: int) -> tuple[float, float]:
    """Parse vectors and check them by arrays, against parsing their JSON."""
    paths = sorted(VECTORS.glob("*.json.gz"))[:files]
    texts = [json.dumps(read_json(path, 64 * MIB)) for path in paths]
    linked = [Kernel.link(**machine_of(json.loads(text))._asdict()) for text in texts]

    def work() -> None:
        for text, one in zip(texts, linked, strict=True):
            check_vectors(parse_vectors(json.loads(text)), one, arrays=True)

    return cpu(work), cpu(lambda: [json.loads(text) for text in texts])


MEASURES: tuple[Measure, ...] = (
    Measure("scalar", scalar.__doc__ or "", {"1K": 1 << 10, "8K": 1 << 13, "64K": 1 << 16}, scalar, 75),
    Measure("touch", touching.__doc__ or "", BARS, touching, 4),
    Measure("touch_2M", touching_pmds.__doc__ or "", HUGE, touching_pmds, 4),
    Measure("touch_1G", touching_puds.__doc__ or "", HUGE, touching_puds, 4),
    Measure("fill", "6.1 fills a BAR at its first touch", BARS, wholly("touch", lambda size: AT), 4),
    Measure("decode", "memory decode goes off", BARS, wholly("pci_memory", lambda size: DECODE), 4),
    Measure("fork", "the entries are copied to a child", BARS, wholly("fork", lambda size: {}), 4),
    Measure("mprotect", "all becomes read-only", BARS, wholly("mprotect", lambda size: ALL(size, prot="r")), 4),
    Measure("munmap", "all is unmapped", BARS, wholly("munmap", lambda size: ALL(size)), 4),
    Measure("mremap", "all moves by a page", BARS, wholly("mremap", moved), 4),
    Measure("dma_map", "a device gets all of it, page by page", BARS, wholly("dma_map", DMA), 4),
    Measure(
        "dma_unmap", "it is taken away again", BARS, wholly("dma_unmap", lambda size: {"iova": 0, "length": size}), 4
    ),
    Measure("dma_cold", mapping_cold.__doc__ or "", BARS, mapping_cold, 4),
    Measure("walk", walking.__doc__ or "", WALKED, walking, 0.2, lacks=volatility.LACKS),
    Measure("follow", following.__doc__ or "", WALKED, following, 3),
    Measure("walks", walking_arrays.__doc__ or "", WALKED, walking_arrays, 0.02),
    Measure("plan", planning.__doc__ or "", {"10": 10, "100": 100, "1000": 1000}, planning, 20),
    Measure("alike", planning_alike.__doc__ or "", {"10": 10, "100": 100, "1000": 1000}, planning_alike, 20),
    Measure("vectors", checking.__doc__ or "", {"1": 1, "2": 2, "3": 3}, checking, 3),
    Measure("replay", replaying.__doc__ or "", {"1": 1, "2": 2, "3": 3}, replaying, 20),
)
