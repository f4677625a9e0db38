"""A guest that garbles, falls silent, oopses or ends costs one request, and is told from one that answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast
from zlib import crc32

import pytest

from pfnmap.errors import Refused
from pfnmap_verify.guest import Died, Guest, NoAnswer
from pfnmap_verify.machine import MACHINES, PciTestdev
from pfnmap_verify.qemu import GuestLost, Qemu

END = "<end of the port>"


def answer(seq: int, *texts: str) -> list[str]:
    lines = enumerate([*texts, "end"])
    return [f"@pfnmap {seq} {n} {crc32(f'{seq} {n} {text}'.encode()):08x} {text}" for n, text in lines]


class Port:
    """A serial port whose other end is a function: request text -> lines."""

    def __init__(self, reply: Callable[[int, str], Iterable[str]]) -> None:
        self.requests: list[str] = []
        self.asked_over: list[str] = []
        self._reply = reply
        self._lines: asyncio.Queue[str] = asyncio.Queue()

    def write(self, data: bytes) -> None:
        if not data:  # the guest speaks first
            return
        _, seq, _, text = data.decode().rstrip("\n").split(" ", 3)
        self.requests.append(text)
        for line in self._reply(int(seq), text):
            self._lines.put_nowait(line)

    def ask_over(self, line: str) -> None:
        self.asked_over.append(line)

    async def read_line(self) -> str:
        line = await self._lines.get()
        if line == END:
            raise GuestLost("the guest ended")
        return line


def guest(port: Port) -> Guest:
    return Guest(cast(Qemu, port), MACHINES["x86_64"])


def asked(reply: Callable[[int, str], Iterable[str]], seconds: float = 1) -> tuple[Port, list[str]]:
    async def ask() -> tuple[Port, list[str]]:
        port = Port(reply)
        return port, await guest(port).ask("walk va=0x1000", seconds)

    return asyncio.run(ask())


def test_an_answer_is_found_between_kernel_messages() -> None:
    _, lines = asked(lambda seq, text: ["[ 1.0] random: crng init done", *answer(seq, "result ok"), "[ 2.0] x"])
    assert lines == ["result ok"]


def test_a_garbled_answer_is_asked_for_again() -> None:
    tries: list[str] = []

    def reply(seq: int, text: str) -> list[str]:
        tries.append(text)
        good = answer(seq, "result ok")
        return good if len(tries) > 1 else [good[0][:-3], good[1]]

    port, lines = asked(reply)
    assert lines == ["result ok"]
    assert port.requests == ["walk va=0x1000"] * 2


def test_silence_is_no_answer() -> None:
    with pytest.raises(NoAnswer, match="no answer for 0 s"):
        asked(lambda seq, text: ["[ 1.0] watchdog: BUG?"], 0.2)


def test_a_guest_that_ends_is_lost() -> None:
    with pytest.raises(GuestLost, match="the guest ended"):
        asked(lambda seq, text: ["noise", END])


def test_an_oops_is_told_with_its_messages_from_the_first_on() -> None:
    said = [
        "[   12.000000][    T1] vfio-pci 0000:00:01.0: enabling device",
        "[   12.345678] BUG: unable to handle page fault for address: ffff888800000000",
        "[   12.345679] Oops: Oops: 0000 [#1] PREEMPT SMP NOPTI",
        "[   12.345680] Kernel panic - not syncing: Fatal exception",
        END,
    ]
    with pytest.raises(Died) as died:
        asked(lambda seq, text: said)
    assert died.value.messages[0] == "BUG: unable to handle page fault for address: ffff888800000000"
    assert len(died.value.messages) == 3


DEVICE = PciTestdev("bar2M", 2 << 20)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("bind", "CONFIG_VFIO_PCI is neither built in nor in --modules"),
        ("container", r"neither /dev/vfio/vfio \(CONFIG_VFIO_CONTAINER\) nor /dev/iommu \(CONFIG_IOMMUFD\)"),
        ("cdev", "CONFIG_VFIO_DEVICE_CDEV"),
        ("iommufd", "cannot be attached through iommufd: ENODEV"),
        ("group", "0000:00:01.0 is in no IOMMU group"),
        ("type1", "CONFIG_VFIO_IOMMU_TYPE1"),
    ],
)
def test_what_a_kernel_lacks_is_named(where: str, words: str) -> None:
    def reply(seq: int, text: str) -> list[str]:
        return (
            answer(seq, "result errno=19", f"where {where}") if text.startswith("vfio ") else answer(seq, "result ok")
        )

    with pytest.raises(Refused, match=words):
        set_up(reply)


def test_a_kernel_without_kprobe_events_is_refused() -> None:
    def reply(seq: int, text: str) -> list[str]:
        return answer(seq, "result errno=2" if text.startswith("probe ") else "result ok")

    with pytest.raises(Refused, match="CONFIG_KPROBE_EVENTS"):
        set_up(reply)


def test_a_firmware_without_room_for_a_bar_is_named() -> None:
    def reply(seq: int, text: str) -> list[str]:
        return (
            answer(seq, "region 2 0x200000 0x7 0x0", "result ok")
            if text.startswith("vfio ")
            else answer(seq, "result ok")
        )

    with pytest.raises(Refused, match="left no room for its BAR"):
        set_up(reply)


@pytest.mark.parametrize(
    ("lacks", "watched"),
    [
        (["vfio_pci_mmap_huge_fault", "vfio_pci_mmap_page_fault"], "vfio_pci_mmap_fault"),
        (["vfio_pci_mmap_huge_fault"], "vfio_pci_mmap_page_fault"),
    ],
    ids=["before huge faults", "without THP"],
)
def test_a_kernel_is_watched_at_the_handler_that_it_has(lacks: list[str], watched: str) -> None:
    def reply(seq: int, text: str) -> list[str]:
        if text.startswith("vfio "):
            return answer(seq, "region 2 0x200000 0x7 0xa68400000", "result ok")
        return answer(seq, "result errno=2" if any(name in text for name in lacks) else "result ok")

    ready = set_up(reply)
    assert ready.functions["fault"] == watched
    assert {*lacks} <= {*ready.not_traceable}


@pytest.mark.parametrize(("said", "lines"), [("result ok", ["virtio"]), ("result errno=2", [])])
def test_a_virtio_console_is_used_where_the_kernel_drives_one(said: str, lines: list[str]) -> None:
    def reply(seq: int, text: str) -> list[str]:
        if text.startswith("vfio "):
            return answer(seq, "region 2 0x200000 0x7 0xa68400000", "result ok")
        return answer(seq, said if text.startswith("wire ") else "result ok")

    ready = set_up(reply)
    assert cast(Any, ready.qemu).asked_over == lines


@pytest.mark.parametrize("backend", ["type1", "iommufd"])
def test_a_kernel_without_a_container_is_driven_through_iommufd(backend: str) -> None:
    def reply(seq: int, text: str) -> list[str]:
        if text.startswith("vfio "):
            return answer(seq, "region 2 0x200000 0x7 0xa68400000", f"backend {backend}", "result ok")
        return answer(seq, "result ok")

    assert set_up(reply).by_iommufd == (backend == "iommufd")


def set_up(reply: Callable[[int, str], list[str]]) -> Guest:
    async def run() -> Guest:
        port: Any = Port(reply)
        for line in answer(0, "hello"):
            port._lines.put_nowait(line)
        ready = guest(port)
        await ready.set_up([], [DEVICE])
        return ready

    return asyncio.run(run())
