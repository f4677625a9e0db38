"""Kernels linked from the machines of the test data."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pfnmap.kernel import Kernel
from pfnmap.testing.vectors import machine_of
from pfnmap_powerpc64 import Powerpc64

DATA = Path(__file__).parent / "data"
VECTORS = sorted(path.name.removesuffix(".json.gz") for path in DATA.glob("*.json.gz"))
NEWEST = "7.3.4"

# Both MMUs with both page sizes, on the newest release.
MACHINES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "radix 64K": ({}, {}),
    "radix 4K": ({}, {"PPC_4K_PAGES": "y"}),
    "hash 64K": ({"mmu": "hash"}, {}),
    "hash 4K": ({"mmu": "hash"}, {"PPC_4K_PAGES": "y"}),
}


@pytest.fixture(scope="session", params=VECTORS)
def vectors(request: pytest.FixtureRequest) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(gzip.decompress((DATA / f"{request.param}.json.gz").read_bytes()))
    return document


@pytest.fixture(scope="session")
def kernel(vectors: dict[str, Any]) -> Kernel:
    return Kernel.link(**{**machine_of(vectors)._asdict(), "arch": Powerpc64})


def link(cpu: dict[str, Any] | None = None, symbols: dict[str, str] | None = None, release: str = NEWEST) -> Kernel:
    return Kernel.link(Powerpc64, given=symbols, defaults={"TRANSPARENT_HUGEPAGE": "y"}, release=release, cpu=cpu)


@pytest.fixture(scope="session", name="link")
def _link() -> Callable[..., Kernel]:
    """Link powerpc64 with a CPU, configuration symbols and a release that differ from the defaults."""
    return link


@pytest.fixture(scope="session", params=MACHINES)
def machine(request: pytest.FixtureRequest) -> Kernel:
    """Both MMUs with both page sizes, one after the other."""
    return link(*MACHINES[request.param])
