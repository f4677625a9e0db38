"""Kernels linked from the machines of the test data."""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pfnmap.kernel import Kernel
from pfnmap_s390 import S390

sys.path.insert(0, str(Path(__file__).parent))  # for uar.py, however pytest imports this directory

DATA = Path(__file__).parent / "data"
VECTORS = sorted(path.name.removesuffix(".json.gz") for path in DATA.glob("*.json.gz"))


@pytest.fixture(scope="session", params=VECTORS)
def vectors(request: pytest.FixtureRequest) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(gzip.decompress((DATA / f"{request.param}.json.gz").read_bytes()))
    return document


@pytest.fixture(scope="session")
def kernel(vectors: dict[str, Any]) -> Kernel:
    machine = vectors["machine"]
    return Kernel.link(S390, config=machine["config"], release=vectors["kernel"], cpu=machine["cpu"])
