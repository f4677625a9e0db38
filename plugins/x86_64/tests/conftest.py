"""Kernels linked from the machines of the test data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pfnmap.kernel import Kernel
from pfnmap.testing.vectors import Vectors, machine_of, read_vectors

DATA = Path(__file__).parent / "data"
VECTOR_FILES = sorted(DATA.glob("x86_64-*.json.gz"))


@pytest.fixture(scope="session", params=VECTOR_FILES, ids=lambda path: path.name.removesuffix(".json.gz"))
def vector_file(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture(scope="session")
def vectors(vector_file: Path) -> Vectors:
    return read_vectors(vector_file)


@pytest.fixture(scope="session")
def kernel(vectors: Vectors) -> Kernel:
    return Kernel.link(**machine_of(vectors)._asdict())


@pytest.fixture(scope="session")
def link() -> Any:
    """Link x86_64 with a configuration, release and CPU that differ from the defaults; kernels are cached."""
    linked: dict[str, Kernel] = {}

    def _link(release: str = "6.12.117", config: dict[str, str] | None = None, **cpu: Any) -> Kernel:
        key = json.dumps([release, config, cpu])
        if key not in linked:
            linked[key] = Kernel.link(
                "x86_64", config={"TRANSPARENT_HUGEPAGE": "y", **(config or {})}, release=release, cpu=cpu
            )
        return linked[key]

    return _link
