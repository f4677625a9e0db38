"""Kernels linked from the machines of the test data."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pfnmap.kernel import Kernel
from pfnmap.testing.vectors import machine_of
from pfnmap_sparc64 import Sparc64

DATA = Path(__file__).parent / "data"
VECTORS = sorted(path.name.removesuffix(".json.gz") for path in DATA.glob("*.json.gz"))


@pytest.fixture(scope="session", params=VECTORS)
def vectors(request: pytest.FixtureRequest) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(gzip.decompress((DATA / f"{request.param}.json.gz").read_bytes()))
    return document


@pytest.fixture(scope="session")
def kernel(vectors: dict[str, Any]) -> Kernel:
    return Kernel.link(**{**machine_of(vectors)._asdict(), "arch": Sparc64})
