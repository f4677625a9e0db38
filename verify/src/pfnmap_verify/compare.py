"""The model against what was recorded: record by record, and where they part, which change makes them meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.errors import PfnmapError, Refused
from pfnmap.kernel import Kernel
from pfnmap.plugins import Registry
from pfnmap.release import Release
from pfnmap.replay import Disagreement, RecordRefused, replay_record
from pfnmap.run import Run
from pfnmap.scenario import Record, Recording
from pfnmap.spec import KernelSpec
from pfnmap_verify.machine import PciTestdev
from pfnmap_verify.recorder import Program

__all__ = ["Comparison", "compare", "kills", "reasons"]

_SPLITTING = ("madvise", "mbind", "mprotect", "mremap", "mseal", "munmap")


@dataclass(frozen=True)
class Comparison:
    """What became of a record: it agrees, or differs first in these fields of a step, or the model refuses it, or
    nothing of its page tables was read ("unwitnessed")."""

    record: Record
    outcome: str
    differences: Sequence[Disagreement] = ()
    reason: str = ""


def compare(kernel: Kernel, recording: Recording, thp: str | None = None) -> list[Comparison]:
    """Replay each record on a kernel; `thp`: what the knob is for the model, whatever it was for the real kernel."""
    return [_compared(kernel, recording, record, thp) for record in recording.records]


def _compared(kernel: Kernel, recording: Recording, record: Record, thp: str | None) -> Comparison:
    if not any(step.expect.keys() & {"entry", "runs", "kvm"} for step in record.steps):
        return Comparison(record, "unwitnessed", reason="no page-table entry was read in it")
    asked = replace(record, thp_enabled=thp or record.thp_enabled)
    found = replay_record(kernel, recording, asked, set())
    if isinstance(found, RecordRefused):
        return Comparison(record, "refused", reason=found.reason)
    return Comparison(record, "differ" if found else "agree", found)


def reasons(
    spec: KernelSpec, own: KernelSpec, recording: Recording, comparison: Comparison, registry: Registry
) -> list[str]:
    """Return what of the model makes it differ, in words: a change, the THP knob, or the release with the changes of it
    that matter; nothing where none of these makes the step agree.

    `spec` is the model, `own` what it is by the kernel image alone.
    """
    step = comparison.differences[0].step
    record = replace(comparison.record, steps=comparison.record.steps[: step + 1])
    meets = _Meets(recording, record, registry)
    kernel = spec.link(registry)
    release, real = kernel.release, own.link(registry).release
    settable = [name for name in release.changes if _can_be_set(spec, release, name, registry)]
    apart = [name for name in settable if release.has(name) != real.has(name)]
    found = [name for name in apart or settable if meets(_flipped(spec, release, [name]))]
    if not found and apart and meets(replace(own, thp=spec.thp)):
        found = _needed(apart, lambda names: meets(_flipped(spec, release, names)))
    words = [_words(release, name) for name in found]
    if spec.thp and meets(replace(spec, thp=None)):
        words.append(f"THP is {record.thp_enabled} in the real kernel, {spec.thp} in the model")
    return words


def _can_be_set(spec: KernelSpec, release: Release, name: str, registry: Registry) -> bool:
    """Whether the model acts on a change: one that it does not act on cannot be set. That it requires others, or others
    require it, is another matter."""
    try:
        _flipped(spec, release, [name]).link(registry)
    except Refused:
        return False
    except PfnmapError:
        pass
    return True


def _needed(names: list[str], enough: Callable[[list[str]], bool]) -> list[str]:
    """Return as few of the names as are enough, by leaving out ever smaller parts of them."""
    part = len(names) // 2
    while part:
        for start in range(0, len(names), part):
            fewer = [*names[:start], *names[start + part :]]
            if enough(fewer):
                names = fewer
                break
        else:
            part //= 2
        part = min(part, len(names) // 2) if len(names) > 1 else 0
    return names


class _Meets:
    """Whether the model of a spec does at each step of a record what was recorded."""

    def __init__(self, recording: Recording, record: Record, registry: Registry) -> None:
        self._recording = recording
        self._record = record
        self._registry = registry

    def __call__(self, spec: KernelSpec) -> bool:
        try:
            kernel = spec.link(self._registry)
            return _compared(kernel, self._recording, self._record, spec.thp).outcome == "agree"
        except PfnmapError:  # a change without what it requires, or a model that refuses
            return False


def _flipped(spec: KernelSpec, release: Release, names: Iterable[str]) -> KernelSpec:
    """Return a spec with these changes the other way round."""
    names = list(names)
    gained = tuple(name for name in names if not release.has(name))
    lost = tuple(name for name in names if release.has(name))
    with_ = (*(name for name in spec.with_ if name not in names), *gained)
    without = (*(name for name in spec.without if name not in names), *lost)
    return replace(spec, with_=with_, without=without)


def _words(release: Release, name: str) -> str:
    has = release.has(name)
    return (
        f"{name}: the model has it, the real kernel acts as if not"
        if has
        else (f"{name}: the model lacks it, the real kernel acts as if it were there")
    )


def kills(kernel: Kernel, program: Program, devices: Sequence[PciTestdev]) -> bool:
    """Return whether the model expects a program to end in an oops, which only what splits a mapping may do. What the
    model refuses is not expected to."""
    mappings = sum(step["op"] == "mmap" for step in program.steps)
    if mappings < 2 and not any(step["op"] in _SPLITTING for step in program.steps):
        return False
    run = Run(kernel, _nominal(devices), image=True)
    run.machine.thp = program.thp_enabled
    try:
        for n, step in enumerate(program.steps):
            if run.step(_step(step, f"{program.id} step {n}")).result == "OOPS":
                return True
    except (Refused, PfnmapError):
        return False
    return False


def _step(step: Mapping[str, Any], where: str) -> Step:
    arguments = {key: value for key, value in step.items() if key not in ("op", "by", "at")}
    return Step(step["op"], arguments, {}, step.get("by", "parent"), step.get("at"), where)


def _nominal(devices: Sequence[PciTestdev]) -> list[Device]:
    """Return devices whose BARs lie somewhere, each aligned to its size as firmware does it."""
    made, at = [], 1 << 38
    for slot, device in enumerate(sorted(devices, key=lambda one: -one.size), 1):
        bars = {0: DeviceBar(0, 0x1000, 0xFE00_0000 + slot * 0x1000), 2: DeviceBar(2, device.size, at)}
        made.append(Device(device.name, f"0000:00:{slot:02x}.0", bars))
        at += device.size
    return made
