"""A fault costs one record: the others go on in a new boot, and what makes every record impossible ends it all."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pfnmap_verify.session
from pfnmap.errors import Refused
from pfnmap.spec import KernelSpec
from pfnmap_verify.image import KernelImage
from pfnmap_verify.machine import MACHINES
from pfnmap_verify.qemu import GuestLost
from pfnmap_verify.recorder import Program
from pfnmap_verify.session import Session, run_session
from pfnmap_verify.subject import Subject

WALK = [{"op": "walk", "va": "0x1000"}]


class FakeQemu:
    """A machine that does nothing; `boots` counts them."""

    boots = 0
    log = b"the last words"

    def __init__(self, *arguments: Any) -> None:
        type(self).boots += 1

    async def __aenter__(self) -> FakeQemu:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass


class FakeGuest:
    """A guest that comes up."""

    traced: tuple[str, ...] = ()
    not_traceable: tuple[str, ...] = ()
    missing = ""

    def __init__(self, *arguments: Any) -> None:
        pass

    async def set_up(self, *arguments: Any) -> None:
        if self.missing:
            raise Refused("verify", self.missing)

    def description(self, devices: Any) -> list[Any]:
        return []


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Session:
    async def run_program(guest: Any, kernel: Any, program: Program, seconds: float) -> dict[str, Any]:
        if "lost" in program.id:
            raise GuestLost("no answer for 120 s")
        own = {"own_boot": True} if program.own_boot else {}
        return {"id": program.id, "steps": [], **own, **({"ends_in_oops": True} if "oops" in program.id else {})}

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(FakeQemu, "boots", 0)
    monkeypatch.setattr(FakeGuest, "missing", "")
    for name, fake in {"Qemu": FakeQemu, "Guest": FakeGuest, "run_program": run_program}.items():
        monkeypatch.setattr(pfnmap_verify.session, name, fake)
    image = KernelImage(Path("vmlinuz"), "x86_64", "6.12.117 (x) #1", b"")
    subject = Subject(image, MACHINES["x86_64"], (), KernelSpec(arch="x86_64", release="6.12.117"))
    return Session(subject, subject.spec.link())


def programs(*names: str) -> list[Program]:
    return [Program(name, WALK, own_boot=name.startswith("alone")) for name in names]


def ids(session: Session) -> list[str]:
    return [record["id"] for record in session.document()["records"]]


def test_all_that_goes_well_takes_one_boot(session: Session) -> None:
    assert run_session(session, programs("a", "b", "c")) is None
    assert (ids(session), session.boots, session.failures) == (["a", "b", "c"], 1, [])


def test_a_lost_guest_costs_its_record_and_a_boot(session: Session, tmp_path: Path) -> None:
    assert run_session(session, programs("a", "lost", "c")) is None
    assert (ids(session), session.boots) == (["a", "c"], 2)
    (failure,) = session.failures
    assert failure.id == "lost"
    (log,) = tmp_path.glob("pfnmap-verify-*.log")
    assert str(log) in failure.reason
    assert log.read_bytes() == b"the last words"


def test_an_oops_is_a_record_and_the_next_one_boots_anew(session: Session) -> None:
    assert run_session(session, programs("a", "oops", "c")) is None
    assert (ids(session), session.boots, session.failures) == (["a", "oops", "c"], 2, [])


def test_what_is_to_be_alone_is_and_the_order_stays(session: Session) -> None:
    assert run_session(session, programs("alone1", "b", "alone2", "d")) is None
    assert (ids(session), session.boots) == (["alone1", "b", "alone2", "d"], 3)


def test_what_the_guest_cannot_do_is_refused_without_a_boot(session: Session) -> None:
    assert run_session(session, [Program("p", [{"op": "acrn.ram_map"}])]) is None
    assert (session.boots, [failure.refused for failure in session.failures]) == (0, [True])


@pytest.mark.parametrize(("lacking", "kept"), [(frozenset(), True), (frozenset({"BUG"}), False)])
def test_a_kernel_without_warnings_is_asked_for_none(session: Session, lacking: frozenset[str], kept: bool) -> None:
    session.subject = replace(session.subject, lacking=lacking)
    assert run_session(session, programs("alone")) is None
    assert ("own_boot" in session.records[0]) is kept


@pytest.mark.parametrize("op", ["mbind", "move_pages", "get_mempolicy", "numa_maps"])
def test_without_numa_its_ops_are_refused_by_name(session: Session, op: str) -> None:
    session.subject = replace(session.subject, lacking=frozenset({"NUMA"}))
    assert run_session(session, [Program("p", [{"op": op}]), *programs("b")]) is None
    assert ([failure.reason for failure in session.failures], ids(session)) == (
        [f"{op}: CONFIG_NUMA is not set in this kernel"],
        ["b"],
    )


def test_a_kernel_without_kvm_costs_the_records_with_virtual_machines(session: Session) -> None:
    session.without_kvm = "module kvm_amd is not in /lib/modules"
    kvm = Program("kvm", [{"op": "kvm.memslot", "slot": 1, "gpa": "0x0", "va": "0x0", "length": 0}])
    assert run_session(session, [*programs("a"), kvm]) is None
    assert (ids(session), session.boots) == (["a"], 1)
    assert [(f.id, f.refused) for f in session.failures] == [("kvm", True)]
    assert "kvm_amd" in session.failures[0].reason


def test_virtual_machines_make_a_recording_of_group_kvm(session: Session) -> None:
    assert run_session(session, programs("a")) is None
    assert session.document()["schema"] == "pfnmap-recording/1"
    session.records[0]["steps"] = [{"op": "vm_create", "expect": {"result": "ok"}}]
    assert (session.document()["schema"], session.document()["group"]) == ("pfnmap-recording/2", "kvm")


def test_what_a_kernel_lacks_ends_it(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeGuest, "missing", "no kprobes")
    error = run_session(session, programs("a", "b", "alone"))
    assert isinstance(error, Refused)
    assert ids(session) == []


def test_the_time_limit_is_for_all_of_it(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forever(*arguments: Any) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(FakeGuest, "set_up", forever)
    session.seconds = 0.1
    error = run_session(session, programs("a"))
    assert isinstance(error, GuestLost)
    assert "the time limit of 0 s is over" in str(error)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_was_recorded_and_strikes_no_task(
    session: Session, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: int
) -> None:
    def handler(number: int, frame: object) -> None:
        raise AssertionError("within the event loop")

    async def run_program(guest: Any, kernel: Any, program: Program, seconds: float) -> dict[str, Any]:
        if program.id == "b":
            signal.raise_signal(number)
            while True:
                await asyncio.sleep(0)
        return {"id": program.id, "steps": []}

    monkeypatch.setattr(pfnmap_verify.session, "run_program", run_program)
    before = signal.signal(number, handler)
    try:
        error = run_session(session, programs("a", "b", "c", "alone"))
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    assert isinstance(error, KeyboardInterrupt)
    assert ids(session) in (["a"], ["a", "alone"])
    assert capfd.readouterr() == ("", "")


def test_an_interrupt_that_is_ignored_stays_so(session: Session) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        signal.raise_signal(signal.SIGINT)
        assert run_session(session, programs("a")) is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
