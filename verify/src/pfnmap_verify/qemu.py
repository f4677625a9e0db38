"""A QEMU process: started, listened to over its serial port and its virtio console, read through QMP, and always ended.

QEMU connects to sockets in a directory of its own, which is removed with it. The kernel sends it SIGKILL when the
process that started it dies, however that dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import re
import shutil
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from qemu.qmp import QMPClient
from qemu.qmp.error import QMPError

from pfnmap.errors import PfnmapError, Refused
from pfnmap_verify.initramfs import newc
from pfnmap_verify.machine import Machine, PciTestdev

__all__ = ["MEMORY", "SERIAL", "VIRTIO", "GuestLost", "Qemu", "find_qemu"]

SERIAL, VIRTIO = "serial", "virtio"
"""The lines to a guest: the serial port with the kernel's console, and the port of a virtio console."""
MEMORY = 1 << 30
_CONNECT_SECONDS = 60
_END_SECONDS = 5
_PR_SET_PDEATHSIG = 1
_LOG_LIMIT = 16 << 20

logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)  # what fails is said by whoever called it


class GuestLost(PfnmapError):
    """QEMU ended, or does not do what is asked."""

    exit_code = 3


def find_qemu(machine: Machine) -> str:
    """Return the path of a machine's QEMU. Raises Refused with how to get it."""
    path = shutil.which(machine.qemu)
    if path is None:
        raise Refused("verify", f"{machine.qemu} is not installed (Debian: apt-get install {machine.package})")
    return path


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Qemu:
    """A machine that boots a kernel with an initramfs, from ``async with`` until its end; `log` is what came over the
    serial port and the virtio console (bytes, the newest 16 MiB). `qmp`: where others find a QMP socket of it."""

    def __init__(
        self,
        machine: Machine,
        kernel: Path,
        files: dict[str, bytes],
        devices: Sequence[PciTestdev],
        append: str = "",
        qmp: Path | None = None,
    ) -> None:
        self.machine = machine
        self.log = bytearray()
        self._kernel = kernel
        self._initrd = newc(files)
        self._devices = devices
        self._append = append
        self._others = () if qmp is None else ("-qmp", f"unix:{qmp},server=on,wait=off")
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._servers: list[asyncio.Server] = []
        self._qmp = QMPClient("pfnmap")
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()
        self._pumps: list[asyncio.Task[None]] = []
        self._writers: dict[str, asyncio.StreamWriter] = {}
        self._asked_over = SERIAL

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _start(self) -> None:
        qemu = find_qemu(self.machine)
        try:
            self._directory = tempfile.TemporaryDirectory(prefix="pfnmap-verify-")
            directory = Path(self._directory.name)
            (directory / "initrd").write_bytes(self._initrd)
        except OSError as error:
            raise Refused("verify", f"no room for the initramfs: {error}") from None
        connected = [await self._listen(directory, line) for line in (SERIAL, VIRTIO)]
        await self._qmp.start_server(str(directory / "qmp"))
        command = [qemu, *self._arguments(directory)]
        with (directory / "errors").open("wb") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is for us
                preexec_fn=_die_with_parent,
            )
        ended = asyncio.create_task(self._process.wait())
        accepted = asyncio.create_task(self._qmp.accept())
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await asyncio.wait({accepted, ended}, return_when=asyncio.FIRST_COMPLETED)
                if not accepted.done():
                    raise GuestLost(f"{self.machine.qemu} did not start: {_said(directory / 'errors')}")
                await accepted
                await asyncio.gather(*connected)
        except (TimeoutError, QMPError, OSError):
            raise GuestLost(f"{self.machine.qemu} did not start: {_said(directory / 'errors')}") from None
        finally:
            for task in (ended, accepted):
                if not task.done():
                    task.cancel()

    async def _listen(self, directory: Path, line: str) -> asyncio.Future[None]:
        """Wait at a socket for QEMU; return what is done when it is there."""
        connected: asyncio.Future[None] = asyncio.Future()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if not connected.done():
                self._writers[line] = writer
                self._pumps.append(asyncio.create_task(self._pump(reader, line)))
                connected.set_result(None)

        self._servers.append(await asyncio.start_unix_server(accept, directory / line))
        return connected

    async def _pump(self, reader: asyncio.StreamReader, line: str) -> None:
        while True:
            try:
                got = await reader.readline()
            except (ValueError, OSError):  # a line without end
                got = b"?\n"
            if got or line == SERIAL:  # which ends with the guest
                self._lines.put_nowait(got)
            if not got:
                return

    def _arguments(self, directory: Path) -> list[str]:
        machine = self.machine
        devices = [part for d in self._devices for part in ("-device", f"pci-testdev,membar={d.size}")]
        return [
            *machine.arguments,
            *("-accel", "tcg", "-smp", "1", "-m", f"{MEMORY >> 20}M"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-nic", "none", "-no-reboot"),
            *("-chardev", f"socket,id=serial,path={directory / SERIAL}", "-serial", "chardev:serial"),
            *("-qmp", f"unix:{directory / 'qmp'}"),
            *self._others,
            *devices,
            *("-device", "virtio-serial-pci", "-chardev", f"socket,id=virtio,path={directory / VIRTIO}"),
            *("-device", "virtserialport,chardev=virtio,name=pfnmap"),
            *("-kernel", str(self._kernel), "-initrd", str(directory / "initrd")),
            *("-append", f"{machine.command_line} pfnmap.tty={machine.tty} {self._append}".rstrip()),
        ]

    async def read_line(self) -> str:
        """Return the next line of the serial port or of the virtio console. Raises GuestLost where the guest ended."""
        line = await self._lines.get()
        if not line:
            self._lines.put_nowait(line)
            raise GuestLost("the guest ended")
        self.log += line
        del self.log[:-_LOG_LIMIT]
        return line.decode(errors="replace").rstrip("\r\n")

    def ask_over(self, line: str) -> None:
        """Send what is written from now on over SERIAL or VIRTIO."""
        self._asked_over = line

    def write(self, data: bytes) -> None:
        """Send bytes to the guest."""
        self._writers[self._asked_over].write(data)

    async def read_words(self, address: int, count: int = 1) -> list[int]:
        """Return 64-bit words of guest memory at a physical address. Raises GuestLost where there is no RAM."""
        try:
            text = await self._qmp.execute("human-monitor-command", {"command-line": f"xp /{count}gx {address:#x}"})
        except QMPError as error:
            raise GuestLost(f"QMP: {error}") from None
        words = re.findall(r"\b0x[0-9a-f]{16}\b", str(text))
        if len(words) != count:
            raise GuestLost(f"guest memory at {address:#x} cannot be read: {str(text).strip()}")
        return [int(word, 16) for word in words]

    async def dump(self, path: Path, form: str = "elf") -> None:
        """Write the guest's memory to a file, in a format of QEMU's ``dump-guest-memory``. Raises GuestLost."""
        asked = {"paging": False, "protocol": f"file:{path}", "format": form}
        try:
            await self._qmp.execute("dump-guest-memory", asked)
        except QMPError as error:
            raise GuestLost(f"QMP: {error}") from None

    async def close(self) -> None:
        """End QEMU, close and remove everything."""
        with contextlib.suppress(Exception):  # it may have ended
            await asyncio.wait_for(self._qmp.execute("quit"), _END_SECONDS)
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._qmp.disconnect(), _END_SECONDS)
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), _END_SECONDS)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        for pump in self._pumps:
            pump.cancel()
        for writer in self._writers.values():
            writer.close()
        for server in self._servers:
            server.close()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None


def _said(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines()
    return lines[-1] if lines else "it said nothing"
