"""A guest that was booted: asked over the serial port, with what it cannot do named."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pfnmap.errors import Refused
from pfnmap_verify.machine import Machine, PciTestdev
from pfnmap_verify.modules import Module
from pfnmap_verify.probes import HANDLERS, PROBES, Probe
from pfnmap_verify.protocol import Answer, request_line
from pfnmap_verify.qemu import MEMORY, VIRTIO, GuestLost, Qemu

__all__ = ["Died", "Guest", "NoAnswer", "Region", "boot_files"]

BOOT_SECONDS = 180
_ASK_AGAIN_SECONDS = 5
_OOPS_SECONDS = 20
_DEATH = re.compile(r"\b(BUG: |Oops: |Oops - |Kernel panic|Internal error: )")
_STAMP = re.compile(r"^\[ *\d+\.\d+\](\[ *[TC]\d+\])? ")
_SHOWN = 40
_VIRTIO_PORT = "/dev/vport0p1"
_ADDRESSES = ("pgd", "tdp", "root")
"""Events that tell where tables are, or are told otherwise than by `calls`."""


class NoAnswer(GuestLost):
    """The guest is silent."""


class Died(GuestLost):
    """The guest's kernel oopsed or panicked: `messages` are the first lines of what it said, without time stamps."""

    def __init__(self, messages: Sequence[str]) -> None:
        super().__init__(messages[0] if messages else "the kernel died without a word")
        self.messages = list(messages)


@dataclass(frozen=True)
class Region:
    """A BAR as vfio gives it: index, size and physical address in bytes, flags of VFIO_DEVICE_GET_REGION_INFO."""

    index: int
    size: int
    flags: int
    phys: int


def boot_files(agent: bytes, modules: Sequence[Module]) -> dict[str, bytes]:
    """Return what the initramfs holds: the guest's init, and the modules."""
    return {"init": agent, **{f"modules/{module.name}.ko": module.content() for module in modules}}


class Guest:
    """The guest's init, which answers requests, and the machine that it runs on."""

    def __init__(self, qemu: Qemu, machine: Machine) -> None:
        self.qemu = qemu
        self.machine = machine
        self.ram = range(machine.ram, machine.ram + MEMORY)
        self.regions: dict[str, list[Region]] = {}
        self.traced: list[str] = []
        self.not_traceable: list[str] = []
        self.by_iommufd = False
        """Whether devices are attached through iommufd, because the kernel has no container."""
        self._probes: dict[str, Probe] = {}
        self._seq = 0
        self._said: list[str] = []

    @property
    def functions(self) -> Mapping[str, str]:
        """The function that each event counts."""
        return {event: probe.function for event, probe in self._probes.items()}

    async def ask(self, text: str, seconds: float) -> list[str]:
        """Return the lines of the answer to a request. Raises NoAnswer when there is none in time, Died when the
        kernel dies of it, GuestLost when QEMU ends without a word."""
        self._seq += 1
        return await self._answer(text, seconds)

    async def _answer(self, text: str | None, seconds: float) -> list[str]:
        answer = Answer(self._seq)
        self._said.clear()
        line = request_line(self._seq, text) if text is not None else b""
        self.qemu.write(line)
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        while not answer.complete:
            left = deadline - clock()
            if left <= 0:
                raise NoAnswer(f"no answer for {seconds:.0f} s")
            try:
                got = await asyncio.wait_for(self.qemu.read_line(), min(left, _ASK_AGAIN_SECONDS))
            except TimeoutError:
                self.qemu.write(line)
                continue
            except GuestLost:
                if any(_DEATH.search(said) for said in self._said):
                    raise Died(self._last_words()) from None
                raise
            if answer.take(got):
                if answer.ended and not answer.complete:  # a message cut a line in two
                    self.qemu.write(line)
            else:
                self._said.append(got)
                if _DEATH.search(got):  # oops=panic: the rest of the message, then the end
                    deadline = min(deadline, clock() + _OOPS_SECONDS)
        return answer.lines

    def _last_words(self) -> list[str]:
        words = [_STAMP.sub("", said) for said in self._said]
        first = next((n for n, said in enumerate(words) if _DEATH.search(said)), 0)
        return words[first : first + _SHOWN]

    async def set_up(self, modules: Sequence[Module], devices: Sequence[PciTestdev]) -> None:
        """Wait for the guest's init, then load modules, set probes and open devices. Raises Refused with what is
        missing."""
        await self._answer(None, BOOT_SECONDS)
        for module in modules:
            parameters = "allow_unsafe_interrupts=1" if module.name == "vfio_iommu_type1" else ""
            done = await self.ask(f"module file={module.name}.ko parameters={parameters}", 60)
            if _errno(done) not in (None, "EEXIST"):
                raise Refused("modules", f"{module.name} cannot be loaded into this kernel: {_errno(done)}")
        if _errno(await self.ask(f"wire path={_VIRTIO_PORT}", 30)) is None:
            self.qemu.ask_over(VIRTIO)
        await self._set_probes({module.name for module in modules})
        for slot, device in enumerate(devices, 1):
            await self._open(device, f"0000:00:{slot:02x}.0")

    async def _set_probes(self, loaded: set[str]) -> None:
        if (errno := _errno(await self.ask("trace", 30))) is not None:
            raise Refused("verify", f"tracefs of this kernel: {errno} (it needs CONFIG_KPROBE_EVENTS)")
        for handler in HANDLERS:
            set_ = [await self._set(probe, loaded) for probe in handler]
            if all(set_):
                break
            self.not_traceable.append(handler[0].function)
        else:
            raise Refused(
                "verify", "vfio-pci's fault handler cannot be probed: it needs CONFIG_KPROBE_EVENTS and vfio-pci"
            )
        for probe in PROBES:
            if not await self._set(probe, loaded) and not (probe.is_return or probe.module):
                self.not_traceable.append(probe.function)
        if "pgd" not in self._probes:
            raise Refused("verify", "pgd_alloc cannot be probed in this kernel, so no page table can be found")
        functions = dict.fromkeys(p.function for p in self._probes.values() if p.event not in _ADDRESSES)
        self.traced = list(functions)

    async def _set(self, probe: Probe, loaded: set[str]) -> bool:
        definition = probe.definition(probe.module in loaded)
        done = await self.ask(f"probe event={probe.event} definition={definition}", 30)
        if _errno(done) is not None:
            return False
        self._probes[probe.event] = probe
        return True

    async def _open(self, device: PciTestdev, bdf: str) -> None:
        lines = await self.ask(f"vfio bdf={bdf} name={device.name}", 60)
        if (errno := _errno(lines)) is not None:
            where = next((line.split()[1] for line in lines if line.startswith("where ")), "")
            raise Refused("verify", _MISSING.get(where, "{bdf}: {errno}").format(bdf=bdf, errno=errno))
        self.by_iommufd = "backend iommufd" in lines
        regions = [line.split()[1:] for line in lines if line.startswith("region ")]
        self.regions[device.name] = [
            Region(int(index), int(size, 16), int(flags, 16), int(phys, 16)) for index, size, flags, phys in regions
        ]
        if not any(region.size == device.size and region.phys for region in self.regions[device.name]):
            raise Refused("verify", f"{bdf}: the firmware left no room for its BAR of {device.size:#x} bytes")

    async def words(self, address: int) -> int:
        """Return the 64-bit word at a physical address."""
        return (await self.qemu.read_words(address))[0]

    def description(self, devices: Sequence[PciTestdev]) -> list[dict[str, Any]]:
        """Return the ``devices`` of a recording."""
        return [
            {
                "name": device.name,
                "bdf": f"0000:00:{slot:02x}.0",
                "bars": [
                    {
                        "index": region.index,
                        "size": region.size,
                        "phys": hex(region.phys),
                        "bits": 64 if region.index == 2 else 32,
                        "prefetchable": region.index == 2,
                        "vfio_region_flags": region.flags,
                    }
                    for region in self.regions[device.name]
                    if region.phys and region.index in (0, 2)
                ],
            }
            for slot, device in enumerate(devices, 1)
        ]


_MISSING = {
    "bind": "{bdf} cannot be bound to vfio-pci ({errno}): CONFIG_VFIO_PCI is neither built in nor in --modules",
    "container": "neither /dev/vfio/vfio (CONFIG_VFIO_CONTAINER) nor /dev/iommu (CONFIG_IOMMUFD) is there: {errno}",
    "cdev": "{bdf} has no character device ({errno}): CONFIG_VFIO_DEVICE_CDEV and CONFIG_VFIO_CONTAINER are not there",
    "iommufd": "{bdf} cannot be attached through iommufd: {errno}",
    "group": "{bdf} is in no IOMMU group ({errno}): this kernel drives no IOMMU of the machine",
    "type1": "no type1 IOMMU ({errno}): CONFIG_VFIO_IOMMU_TYPE1 is neither built in nor in --modules",
    "devices": "more devices than the guest's init can hold",
}


def _errno(lines: Sequence[str]) -> str | None:
    """Return the errno name of an answer, None where it is ok."""
    import errno

    for line in lines:
        if line.startswith("result errno="):
            number = int(line.removeprefix("result errno="))
            return errno.errorcode.get(number, str(number))
    return None
