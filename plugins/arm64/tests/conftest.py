"""Kernels linked from the machines of the test data."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pfnmap.kernel import Kernel
from pfnmap_arm64 import Arm64

DATA = Path(__file__).parent / "data"
VECTORS = sorted(path.name.removesuffix(".json.gz") for path in DATA.glob("*.json.gz"))


@pytest.fixture(scope="session", params=VECTORS)
def vectors(request: pytest.FixtureRequest) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(gzip.decompress((DATA / f"{request.param}.json.gz").read_bytes()))
    return document


@pytest.fixture(scope="session")
def kernel(vectors: dict[str, Any]) -> Kernel:
    machine = vectors["machine"]
    return Kernel.link(Arm64, config=machine["config"], release=vectors["kernel"], cpu=machine["cpu"])


@pytest.fixture(scope="session")
def recorded() -> dict[str, list[dict[str, Any]]]:
    """The rows of accesses.json by CPU ("a72", "n1"), each as a dict."""
    document = json.loads((DATA / "accesses.json").read_text())
    columns = document.pop("columns")
    return {cpu: [dict(zip(columns, row, strict=True)) for row in rows] for cpu, rows in document.items()}
