"""A session: programs run on as many boots of one kernel as it takes, a record or a verdict for each."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pfnmap.boundary import Interrupted
from pfnmap.errors import BadInput, PfnmapError, Refused
from pfnmap.kernel import Kernel
from pfnmap_verify.guest import Guest
from pfnmap_verify.machine import DEVICES, PciTestdev
from pfnmap_verify.qemu import GuestLost, Qemu
from pfnmap_verify.recorder import Program, run_program
from pfnmap_verify.subject import Subject

__all__ = ["Failure", "Session", "run_session"]

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
_MOST_GUESTS = 2
"""Guests at a time: each has one CPU and 1 GiB."""


@dataclass(frozen=True)
class Failure:
    """A program that gave no record: its id, the reason in words, and whether its guest was lost or it was refused."""

    id: str
    reason: str
    refused: bool = False


@dataclass
class Session:
    """What came of the programs: the recording's document, failures, and what it took.

    `without_kvm`: why no virtual machine can be made, where that is known. `progress` is told (records done, boots).
    `lost_logs`: paths of the serial logs of guests that failed.
    """

    subject: Subject
    kernel: Kernel
    devices: Sequence[PciTestdev] = DEVICES
    append: str = ""
    without_kvm: str = ""
    seconds: float = 3600.0
    step_seconds: float = 120.0
    progress: Callable[[int, int], None] = lambda done, boots: None
    records: list[dict[str, Any]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    lost_logs: list[str] = field(default_factory=list)
    boots: int = 0
    elapsed: float = 0.0
    _described: dict[str, Any] = field(default_factory=dict)
    _order: dict[str, int] = field(default_factory=dict)
    _begun: float = field(default_factory=time.monotonic)

    def document(self) -> dict[str, Any]:
        """Return the recording of what was recorded so far: of group kvm where virtual machines were made."""
        of_kvm = any(step["op"] == "vm_create" for record in self.records for step in record["steps"])
        schema = {"schema": "pfnmap-recording/2", "group": "kvm"} if of_kvm else {"schema": "pfnmap-recording/1"}
        return {
            **schema,
            "machine": self.subject.recorded(self.kernel),
            **self._described,
            "records": sorted(self.records, key=lambda record: self._order.get(record["id"], 0)),
        }

    def anew(self) -> Session:
        """Return a session of the same kernel in which nothing was run, with the time that is left."""
        left = self._time_left()
        return Session(self.subject, self.kernel, self.devices, self.append, self.without_kvm, left, self.step_seconds)

    async def run(self, programs: Sequence[Program]) -> None:
        """Run programs: those that need a boot of their own after the others. Raises Refused for what makes every
        record impossible, GuestLost when two boots in a row do not come up."""
        together: list[Program] = []
        alone: list[Program] = []
        self._order = {program.id: n for n, program in enumerate(programs)}
        for program in programs:
            try:
                program.check(self.subject.lacking)
                if program.needs_kvm and self.without_kvm:
                    raise Refused("kvm", self.without_kvm)
            except Refused as refusal:
                self.failures.append(Failure(program.id, str(refusal), refused=True))
                continue
            (alone if program.own_boot else together).append(program)
        slots = asyncio.Semaphore(min(_MOST_GUESTS, os.cpu_count() or 1))

        async def chain(left: list[Program]) -> None:
            async with slots:
                while left:
                    left = await self._boot(left)

        try:
            async with asyncio.TaskGroup() as group:
                for programs_of_boot in (together, *([program] for program in alone)):
                    group.create_task(chain(programs_of_boot))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self.elapsed = time.monotonic() - self._begun

    async def _boot(self, programs: Sequence[Program]) -> list[Program]:
        """Run programs in one boot until one costs it; return those that are left."""
        self.boots += 1
        self._tell()
        subject = self.subject
        qemu = Qemu(subject.machine, subject.image.path, subject.files(), self.devices, self.append)
        left = list(programs)
        try:
            async with qemu, asyncio.timeout(self._time_left()):
                guest = Guest(qemu, subject.machine)
                await guest.set_up(subject.modules, self.devices)
                self._describe(guest)
                while left:
                    program = left.pop(0)
                    try:
                        record = await run_program(guest, self.kernel, program, self.step_seconds)
                    except (BadInput, Refused) as error:
                        self.failures.append(Failure(program.id, str(error), refused=True))
                        return left  # the guest stands in the middle of a record
                    except GuestLost as lost:
                        self.failures.append(Failure(program.id, f"{lost}{self._keep(qemu)}"))
                        return left
                    if "BUG" in subject.lacking:  # such a kernel tells no WARNING: none is compared
                        record.pop("own_boot", None)
                    self.records.append(record)
                    self._tell()
                    if record.get("ends_in_oops"):
                        return left
        except TimeoutError:
            raise GuestLost(f"the time limit of {self.seconds:.0f} s is over{self._keep(qemu)}") from None
        except GuestLost as lost:
            if len(left) == len(programs):
                raise GuestLost(f"the kernel does not come up: {lost}{self._keep(qemu)}") from None
            raise
        return left

    def _describe(self, guest: Guest) -> None:
        traced = {"traced": guest.traced, "not_traceable": guest.not_traceable}
        self._described = {
            "kernel": self.subject.kernel_of_recording(self.kernel, traced),
            "devices": guest.description(self.devices),
        }

    def _time_left(self) -> float:
        return max(1.0, self.seconds - (time.monotonic() - self._begun))

    def _tell(self) -> None:
        self.progress(len(self.records) + len(self.failures), self.boots)

    def _keep(self, qemu: Qemu) -> str:
        """Keep a guest's serial log, if it said anything; return where, to be said."""
        if not qemu.log:
            return ""
        try:
            with tempfile.NamedTemporaryFile(prefix="pfnmap-verify-", suffix=".log", delete=False) as file:
                file.write(qemu.log)
        except OSError as error:
            return f" (its serial log could not be kept: {error})"
        self.lost_logs.append(file.name)
        return f" (serial log: {file.name})"


def run_session(session: Session, programs: Sequence[Program]) -> PfnmapError | KeyboardInterrupt | None:
    """Run programs to their end; return what ended it before. What was recorded until then is in the session.

    SIGINT and SIGTERM cancel what runs: raised by a handler, an interrupt would strike any task or the event loop.
    """
    before = {n: handler for n in _INTERRUPTS if (handler := signal.getsignal(n)) is not signal.SIG_IGN}
    ended: list[PfnmapError | KeyboardInterrupt] = []

    async def run() -> None:
        task, loop = asyncio.ensure_future(session.run(programs)), asyncio.get_running_loop()

        def interrupt() -> None:
            ended.append(Interrupted())
            task.cancel()

        for number in before:
            loop.add_signal_handler(number, interrupt)
        await task

    try:
        asyncio.run(run())
    except PfnmapError as error:
        ended.append(error)
    except asyncio.CancelledError:
        pass  # by an interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return ended[0] if ended else None
