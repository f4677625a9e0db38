"""The kit for pytest: one class for an architecture, one for a driver.

A test file of five lines::

    from pfnmap.testing import ArchConformance

    class TestConformance(ArchConformance):
        arch = "x86_64"
        vectors = ["data/x86_64-4k.json.gz"]

pytest finds the plugin that fills it with tests (`pfnmap.testing.pytest_plugin`) through its entry point. Every check
on every machine is a test; ``-k special-survives`` picks, ``-rx`` shows what was expected to fail. What was expected to
fail and passes is a failure.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pfnmap.contract.arch import Arch
from pfnmap.contract.module import Module
from pfnmap.errors import Unwritten

if TYPE_CHECKING:
    from pfnmap.testing.kit import Item, Kit

__all__ = ["ArchConformance", "DriverConformance"]


class Task(NamedTuple):
    """One test: an item of a kit."""

    kit: Kit
    item: Item


class _Conformance:
    """What both classes have."""

    machines: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Machines in addition to the kit's and the plugin's own: name -> arguments of `pfnmap.kernel.Kernel.link`."""

    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Expected failures in addition to the plugin's own: "check", "check:level", "check:level@machine" -> reason."""

    _kit: ClassVar[Kit]

    @classmethod
    def kit(cls) -> Kit:
        """Return the kit on the plugin, made once."""
        if "_kit" not in cls.__dict__:
            cls._kit = cls.make_kit()
        return cls._kit

    @classmethod
    def make_kit(cls) -> Kit:
        """Return the kit on the plugin."""
        raise NotImplementedError

    def test_conformance(self, pfnmap_task: Task) -> None:
        """One check on one machine."""
        import pytest

        from pfnmap.testing.check import Violation

        kit, item = pfnmap_task
        check = item.case.check
        unwritten = failure = ""
        try:
            kit.do(item)
        except Unwritten as error:
            unwritten, failure = error.name, f"{error}: {check.reason}"
        except Violation as error:
            where = f"{kit.name} on {item.machine}: " if item.machine else f"{kit.name}: "
            failure = f"{where}{item.case.id}: {error}\n({check.name}: {check.reason})"
        if unwritten and check.name != f"written-{unwritten}":
            pytest.skip(f"waits for {unwritten}, which is still to be written")
        if failure:
            pytest.fail(failure, pytrace=False)


class ArchConformance(_Conformance):
    """The tests of an architecture. Set `arch`, its name or its class."""

    arch: ClassVar[str | type[Arch]]

    vectors: ClassVar[Sequence[str | os.PathLike[str]]] = ()
    """Golden vector files, relative to the test file: checks ``vectors-NAME-ints`` and ``vectors-NAME-arrays``."""

    kconfig: ClassVar[Sequence[str | os.PathLike[str]]] = ()
    """Records of what the kernel's own conf derived, relative to the test file: checks ``kconfig-records-NAME``."""

    @classmethod
    def make_kit(cls) -> Kit:
        """Return the kit on the architecture."""
        from pfnmap.testing.kit import arch_kit

        here = Path(inspect.getfile(cls)).parent
        vectors, kconfig = [here / file for file in cls.vectors], [here / file for file in cls.kconfig]
        return arch_kit(cls.arch, cls.machines, cls.expected_failures, vectors=vectors, kconfig=kconfig)


class DriverConformance(_Conformance):
    """The tests of a driver, or of another module. Set `driver`, its name or its class."""

    driver: ClassVar[str | type[Module]]

    @classmethod
    def make_kit(cls) -> Kit:
        """Return the kit on the driver."""
        from pfnmap.testing.kit import driver_kit

        return driver_kit(cls.driver, cls.machines, cls.expected_failures)
