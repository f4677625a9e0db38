"""What drivers recognise of a host: lines of /proc/PID/maps, open files, lines of the kernel's log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pfnmap.boundary import calling
from pfnmap.contract.mapping import HeldFile, LoggedFault, MappedPart
from pfnmap.errors import PfnmapError

if TYPE_CHECKING:
    from pfnmap.contract.entry import Has
    from pfnmap.contract.module import Driver

__all__ = ["Recognition"]


class Recognition:
    """Drivers, asked one after another what is theirs. One that fails at it says nothing of that, and `failed` is told,
    once for each way of failing.

    `drivers`: the classes of the drivers by plugin name.
    """

    def __init__(self, drivers: Mapping[str, type[Driver]], failed: Callable[[str], None]) -> None:
        self.drivers = drivers
        self._failed = failed
        self._told: set[str] = set()

    def mapped(self, path: str, offset: int | None, has: Has) -> Iterator[tuple[str, MappedPart]]:
        """Yield which part of a BAR a line of /proc/PID/maps maps (`Driver.mapped`), and which driver says so."""
        return self._said("mapped", MappedPart, path, offset, has)

    def held(self, link: str, fdinfo: str) -> HeldFile | None:
        """Return what an open file is (`Driver.held`), None for one that is no driver's."""
        return next((file for _, file in self._said("held", HeldFile, link, fdinfo)), None)

    def logged(self, line: str) -> LoggedFault | None:
        """Return which fault a line of the log is about (`Driver.logged`), None for one that is no handler's."""
        return next((fault for _, fault in self._said("logged", LoggedFault, line)), None)

    def _said(self, method: str, kind: type[Any], *what: Any) -> Iterator[tuple[str, Any]]:
        for name, driver in self.drivers.items():
            try:
                with calling(name, f"{method}()") as gave:
                    said = gave(getattr(driver, method)(*what), kind | None)
            except PfnmapError as error:
                if str(error) not in self._told:
                    self._told.add(str(error))
                    self._failed(str(error))
            else:
                if said is not None:
                    yield name, said
