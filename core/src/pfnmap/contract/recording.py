"""Groups of recordings: what a plugin says of the recordings that are about its subject (schema pfnmap-recording/2).

An entry point of group ``pfnmap.recording``, whose name is the recordings' `group`, names a subclass of
`RecordingGroup`. A recording of schema pfnmap-recording/1 belongs to no group.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pfnmap.contract.step import ScenarioRun, Step

__all__ = ["RecordingGroup"]


class RecordingGroup:
    """How the recordings of a group are read and compared. Its ops are actions of the plugins in `drivers`; the rest
    is as in every recording unless it is said here."""

    drivers: ClassVar[tuple[str, ...]] = ()
    """The drivers that the recorded kernel is linked with, besides vfio_pci."""

    fields: ClassVar[Mapping[str, type | tuple[type, ...]]] = {}
    """The keys that its `expect`s have besides the common ones and that are compared, with their types in JSON."""

    artefacts: ClassVar[frozenset[str]] = frozenset()
    """The keys that its `expect`s have and that are not compared, because they say how it was recorded."""

    messages: ClassVar[tuple[str, ...]] = ()
    """The log lines that its recordings hold besides what all hold, as regular expressions."""

    def document(self, document: dict[str, Any]) -> Mapping[str, Any]:
        """Return a recording's JSON document in the shape that every recording has.

        For what the group writes otherwise, or leaves unsaid: devices, names of ops and arguments, steps that made
        what a record starts with (without an `expect`, so that nothing of them is compared).
        """
        return document

    def observe(self, run: ScenarioRun, step: Step) -> Mapping[str, Any]:
        """Return what is seen after a step, whichever op it was, besides its results: a state such as a list of memory
        types, under the key of `expect` that has it."""
        return {}

    def normalise(self, run: ScenarioRun, step: Step, expect: dict[str, Any], got: dict[str, Any]) -> None:
        """Change what a step is expected to give, and what it gave, into what is to be compared with plain equality."""
