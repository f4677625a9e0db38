"""A run: the steps of a scenario or of a recording, executed on one linked kernel.

The core's ops are in `pfnmap.ops`; ops of the architecture and of drivers are their `actions`. `Run.step` performs one
step and returns its results.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import islice
from typing import Any, cast

from pfnmap.contract.step import LISTED_FAULTS, Action, Step, StepEvents, StepResult
from pfnmap.contract.vma import MmStruct
from pfnmap.errors import BadInput, PfnmapError, PluginError, Refused, Unknown
from pfnmap.mm.uaccess import NeverCompletes
from pfnmap.offers import action_owners
from pfnmap.ops import OPS
from pfnmap.ops.arguments import address_value, argument_value
from pfnmap.ops.state import RunState
from pfnmap.plugins import calling, why_not_linked
from pfnmap.trace import Call, Event, Fault, KernelDied, Message, Split, counted, unrolled

__all__ = ["Run", "Step"]

_RESULTS = Mapping[str, str | int | float | list[Any] | tuple[Any, ...] | Mapping[str, Any] | None]
"""What an action gives: what can be written as JSON."""

_FOLLOWS = ("follow_pfnmap_start", "follow_pte")


class Run(RunState):
    """A run: `RunState`, and the steps that change it."""

    @cached_property
    def _offered(self) -> dict[str, Mapping[str, Action]]:
        return dict(self._plugin_actions())

    def _plugin_actions(self) -> Iterator[tuple[str, Mapping[str, Action]]]:
        """Yield the plugins with their actions; one that fails to tell them is left out."""
        for plugin, module in self.machine.modules.items():
            try:
                with calling(plugin, "actions()") as gave:
                    yield plugin, gave(module.actions(), Mapping[str, Action])
            except PfnmapError as error:
                self.left_out[plugin] = str(error)

    @cached_property
    def _actions(self) -> dict[str, tuple[str, Action]]:
        """Actions with the plugins that they are of, by "plugin.action", and by the bare name where one alone has
        it."""
        full = {f"{p}.{name}": (p, action) for p, actions in self._offered.items() for name, action in actions.items()}
        claims = Counter(name.partition(".")[2] for name in full)
        bare = {name.partition(".")[2]: a for name, a in full.items() if claims[name.partition(".")[2]] == 1}
        return {**bare, **full}

    def step(self, step: Step) -> StepResult:
        """Perform one step and return its results.

        Raises Refused for what the model does not cover, BadInput for arguments that cannot be, PluginError where a
        plugin raises anything else.
        """
        if self.oops is not None:
            raise BadInput(step.where, f"the kernel died before it: {self.oops.finding} in {self.oops.function}")
        mm = self.current = self.process(step.by, step.where)
        if mm in self.hanging:
            self._end_of_hang(mm, step)
        trace = self.machine.trace
        trace.drain()
        measured = self.parent if step.op == "exit" else mm  # the child is gone then
        before = measured.pgtables_bytes
        more: dict[str, Any] = {}
        try:
            with self.blaming_plugins(step.op):
                more.update(self._perform(step, mm))
        except (BadInput, Unknown) as error:
            if step.where not in str(error):
                error.placed(step.where)
            raise
        except NeverCompletes as never:
            self.hanging[mm] = never.address
            more["result"] = "HANG"
        except KernelDied as death:
            self.oops = death.oops
            trace.emit(death.oops)
            more["result"] = "OOPS"
        result = more.pop("result", "ok")
        events = None if step.op == "scan" else _collated(trace.drain())
        found = None
        if step.at is not None and self.oops is None:
            found = self.entry(mm, address_value(step.at, self.names, step.where))
        return StepResult(result, more, events, measured.pgtables_bytes - before, found)

    def _end_of_hang(self, mm: MmStruct, step: Step) -> None:
        """Let a process go on where its endless fault has ended, as it does when the leaf is gone: then the handler is
        asked anew (`unpinned.clear_refs.pud.child_kernel_write`)."""
        if mm.tables.leaf(self.hanging[mm]) is not None:
            raise Refused(step.op, f"the {step.by} is in a system call that does not end, at {self.hanging[mm]:#x}")
        del self.hanging[mm]

    def check(self, steps: Iterable[Step]) -> None:
        """Check what can be known of steps before the first is performed: their ops, and the names and kinds of their
        arguments. Raises as `step` does."""
        names = dict(self.names)
        for step in steps:
            self._arguments(step, names)
            if isinstance(id := step.arguments.get("id"), str):
                names[id] = 0
            if step.at is not None:
                address_value(step.at, names, step.where)

    def _perform(self, step: Step, mm: MmStruct) -> Mapping[str, Any]:
        arguments = self._arguments(step, self.names)
        if step.op in OPS:
            return OPS[step.op].run(self, mm, **arguments)
        plugin, action = self._actions[step.op]
        with calling(plugin, step.op) as gave:
            result = gave(action.run(self, **arguments), _RESULTS)
        try:
            json.dumps(result, allow_nan=False)
        except (ValueError, TypeError, RecursionError) as error:
            raise PluginError(plugin, f"{step.op} gave what JSON has not: {error}") from None
        return result

    def _kinds(self, step: Step) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Return the arguments that a step's op needs, and those that may be left out, with their kinds."""
        if step.op in OPS:
            return OPS[step.op].required, OPS[step.op].optional
        if step.op not in self._actions:
            raise self._unknown_op(step)
        _, action = self._actions[step.op]
        optional = {name: kind for name, kind in action.arguments.items() if name in action.optional}
        return {name: kind for name, kind in action.arguments.items() if name not in optional}, optional

    def _unknown_op(self, step: Step) -> Exception:
        plugin, dot, action = step.op.partition(".")
        if not dot:
            owners = [name for name, actions in self._offered.items() if step.op in actions]
            if owners:
                said = " or ".join(f"{name}.{step.op}" for name in owners)
                return BadInput(step.where, f"op {step.op!r} is an action of several plugins; say {said}")
            if step.op not in action_owners():
                return Unknown(f"op at {step.where}", step.op, [*OPS, *self._actions])
            plugin = action_owners()[step.op]
        elif plugin in self._offered:
            return Unknown(f"action of {plugin} at {step.where}", action, self._offered[plugin])
        if plugin in self.left_out:
            return BadInput(step.where, f"op {step.op!r} cannot be had: {self.left_out[plugin]}")
        why = why_not_linked(plugin, self.kernel.arch.name)
        return BadInput(step.where, f"op {step.op!r} is an action of plugin {plugin!r}, {why}")

    def _arguments(self, step: Step, names: Mapping[str, int]) -> dict[str, Any]:
        required, optional = self._kinds(step)
        known = {**required, **optional}
        for name in step.arguments:
            if name not in known:
                raise Unknown(f"argument of {step.op} at {step.where}", name, known)
        for name in required:
            if name not in step.arguments:
                raise BadInput(step.where, f"{step.op} lacks its argument {name!r}")
        return {
            name: argument_value(known[name], value, names, f"{step.where} {name}")
            for name, value in step.arguments.items()
        }


def _collated(events: list[Event]) -> StepEvents:
    """Fold a step's events."""
    calls: defaultdict[str, int] = defaultdict(int)
    follows: defaultdict[str, int] = defaultdict(int)
    splits: defaultdict[str, int] = defaultdict(int)
    faults = 0
    messages: list[str] = []
    for event, count in counted(events):
        if isinstance(event, Call):
            calls[event.function] += count
            if event.function in _FOLLOWS:
                follows[event.ret] += count
        elif isinstance(event, Fault):
            faults += count
        elif isinstance(event, Split):
            splits[f"thp_split_{event.level}"] += count
        elif isinstance(event, Message):
            messages += [event.text] * count
    listed = cast(Iterator[Fault], islice(unrolled(events, Fault), min(faults, LISTED_FAULTS)))
    return StepEvents(tuple(listed), faults, calls.pop("handle_mm_fault", 0), calls, follows, splits, tuple(messages))
