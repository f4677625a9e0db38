"""Fixtures of the core's tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution of one module that has one entry point, as pip lays it out."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("PFNMAP_PLUGINS", raising=False)

    def _install(distribution: str, kind: str, name: str, source: str, module: str = "", version: str = "1.0") -> None:
        module = module or f"{distribution.replace('-', '_')}_module"
        (tmp_path / f"{module}.py").write_text(source)
        monkeypatch.delitem(sys.modules, module, raising=False)
        info = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[pfnmap.{kind}]\n{name} = {module}:Toy\n")

    return _install
