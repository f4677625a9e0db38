"""What pytest loads through its entry point: it fills the classes of `pfnmap.testing.conformance` with tests.

It imports next to nothing: pytest loads it in every run of the environment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from pfnmap.testing.conformance import _Conformance

__all__ = ["pytest_generate_tests"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of every check on every machine."""
    if "pfnmap_task" in metafunc.fixturenames:
        assert metafunc.cls is not None
        metafunc.parametrize("pfnmap_task", _tasks(metafunc.cls))


def _tasks(test: type[_Conformance]) -> list[Any]:
    import pytest

    from pfnmap.errors import PfnmapError
    from pfnmap.testing.conformance import Task

    try:
        kit = test.kit()
        items = list(kit.items())
    except PfnmapError as error:
        raise pytest.UsageError(f"{test.__name__}: {error}") from None
    return [
        pytest.param(
            Task(kit, item),
            id=item.id,
            marks=[pytest.mark.xfail(reason=why, strict=True)] if (why := kit.expected(item)) else [],
        )
        for item in items
    ]
