"""Fixtures of the tests that cross plugins."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from typer.testing import CliRunner, Result

Invoke = Callable[..., Result]

settings.register_profile("long", max_examples=20_000, deadline=None)


@pytest.fixture(autouse=True)
def _of_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody says how wide a terminal is, but a test that means it: pytest-xdist does to its workers."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def pfnmap() -> Invoke:
    """Run the command line in this process; the result has exit_code, stdout and stderr."""
    from pfnmap.cli.app import app

    return lambda *arguments, **extra: CliRunner().invoke(app, [str(a) for a in arguments], **extra)


@pytest.fixture
def answer(pfnmap: Invoke) -> Callable[..., dict[str, Any]]:
    """Run a command with --json and return its document, which is all that it may print."""

    def run(*arguments: Any, exit_code: int = 0) -> dict[str, Any]:
        result = pfnmap(*arguments, "--json")
        assert result.exit_code == exit_code, result.output
        document: dict[str, Any] = json.loads(result.stdout)
        assert document["schema"] == f"pfnmap-{arguments[0]}/1"
        return document

    return run


@pytest.fixture
def refused(pfnmap: Invoke) -> Callable[..., str]:
    """Run a command that has to fail with nothing on stdout and one line on stderr; return the line."""

    def run(*arguments: Any, exit_code: int = 2) -> str:
        result = pfnmap(*arguments)
        assert result.exit_code == exit_code, result.output
        assert result.stdout == ""
        lines = result.stderr.splitlines()
        assert len(lines) == 1, result.stderr
        assert "Traceback" not in lines[0]
        assert "internal error" not in lines[0]
        return lines[0]

    return run


@pytest.fixture
def process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line, or Python code (`code`), in a process of its own."""

    def run(
        *arguments: str, code: str = "", env: Mapping[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        code = code or "from pfnmap.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **(env or {})},
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def root() -> Path:
    """The workspace."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def hosts() -> Any:
    """The script that lays out the hosts of examples/hosts, as a module."""
    name = "pfnmap_example_hosts"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent.parent / "examples" / "hosts" / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
