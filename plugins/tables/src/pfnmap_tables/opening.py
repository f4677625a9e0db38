"""What is read: a running kernel, a guest, or a dump, opened as drgn's program of its memory."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Final

from drgn import Platform, Program, ProgramFlags

from pfnmap.errors import BadInput, Refused
from pfnmap_tables.memory import DAMAGE, Memory
from pfnmap_tables.note import note_in_file, note_in_memory
from pfnmap_tables.target import ARCHITECTURES, Target
from pfnmap_tables.typefile import TypeFile

__all__ = ["of_core", "of_live", "of_qmp"]

_GREETING: Final = 5
"""Seconds that a QMP socket has to greet."""
_KCORE: Final = "/proc/kcore"
_KDUMP: Final = re.compile(rb"KDUMP   .{264}([ -~]{1,64})\0", re.DOTALL)
"""The header of makedumpfile's format, up to the name of the machine (struct disk_dump_header, utsname.machine)."""
_HEADERS: Final = 1 << 16
_MACHINES: Final = {b"x86_64": "x86_64", b"aarch64": "arm64"}
_PROVISIONAL: Final = b"OSRELEASE=6.0.0\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=1\n"
"""A note with which a dump that has none can be opened, to look for the kernel's own in its physical memory."""


def of_live(types: TypeFile | None = None) -> Target:
    """Return the running kernel. Raises Refused without root or /proc/kcore."""
    program = Program()
    try:
        program.set_kernel()
        note = bytes(program["VMCOREINFO"].string_())
    except FileNotFoundError:
        raise Refused(_KCORE, "it is not there (CONFIG_PROC_KCORE, or a container hides it); a dump will do") from None
    except PermissionError:
        raise Refused(_KCORE, "only root may read it, and nobody under kernel lockdown; a dump will do") from None
    except (OSError, *DAMAGE) as error:
        raise Refused(_KCORE, f"it cannot be read ({error}); a dump will do") from None
    return Target(Memory(program, "the running kernel"), note, "the running kernel", True, types)


def of_core(path: str, arch: str | None, types: TypeFile | None = None) -> Target:
    """Return a dump: ELF, makedumpfile's formats, or QEMU's. `arch`: the architecture, where it does not say.

    Raises BadInput for a file that cannot be read, Refused for one that is no dump that is known.
    """
    if not Path(path).is_file():
        raise BadInput(path, "no such file" if not Path(path).exists() else "no file")
    try:
        with open(path, "rb") as file:
            kdump = _KDUMP.search(file.read(_HEADERS))
        platform = _platform(path, arch or (_MACHINES.get(kdump[1]) if kdump else None))
        program, said = _loaded(path, platform, None)
        note = None if said else _own_note(program)
        if note is None and kdump and platform is None:
            raise Refused(path, "neither VMCOREINFO nor an architecture in its header: --arch says the second")
        if note is None and kdump:
            bare, said = _loaded(path, platform, _PROVISIONAL)
            note = None if said else note_in_memory(bare)
        elif note is None:
            note = note_in_file(path)
        if note is None:
            why = f"{said or 'no VMCOREINFO in it'}{'; QEMU also writes ELF' if kdump else ''}"
            raise Refused(path, f"no dump of a Linux kernel that is known: {why}")
        if not program.flags & ProgramFlags.IS_LINUX_KERNEL:
            program, said = _loaded(path, platform or program.platform, note)
    except OSError as error:
        raise BadInput(path, f"cannot be read: {error.strerror or error}") from None
    if said:
        raise Refused(path, f"no dump that is known: {said}; does --arch say its own?")
    return Target(Memory(program, path), note, path, False, types)


def of_qmp(address: str, arch: str | None, types: TypeFile | None = None) -> Target:
    """Return a running guest, by the address of its QMP socket. Raises BadInput for one that does not answer."""
    _greeted(address)
    program = Program(_platform(address, arch))
    try:
        program.set_qemu_qmp(address)
    except OSError as error:
        raise BadInput(address, f"cannot be read: {error.strerror or error}") from None
    except DAMAGE as error:
        raise Refused(address, f"no guest that is known: {_line(error)}") from None
    note = _own_note(program)
    if note is None:
        note = note_in_memory(program)
        if note is None:
            raise Refused(address, "no VMCOREINFO in its memory: is it a Linux guest, and has it booted?")
        try:
            program.set_linux_kernel_custom(note, True)
        except DAMAGE as error:
            raise Refused(address, f"its VMCOREINFO is none: {_line(error)}") from None
    return Target(Memory(program, address), note, address, True, types)


def _loaded(path: str, platform: Platform | None, note: bytes | None) -> tuple[Program, str]:
    """Return a program of a dump, and why it is none ("": it is one)."""
    program = Program(platform)
    try:
        program = Program(platform, vmcoreinfo=note)
        program.set_core_dump(path)
    except OSError:
        raise
    except Exception as error:  # drgn raises no narrower one for what libkdumpfile says
        return program, _line(error)
    return program, ""


def _own_note(program: Program) -> bytes | None:
    """Return the note that a target brings, None for one that brings none."""
    if not program.flags & ProgramFlags.IS_LINUX_KERNEL:
        return None
    return bytes(program["VMCOREINFO"].string_())


def _platform(name: str, arch: str | None) -> Platform | None:
    if arch is not None and arch not in ARCHITECTURES:
        raise Refused(name, f"tables of {arch} are not read; those of {', '.join(ARCHITECTURES)} are")
    return None if arch is None else Platform(ARCHITECTURES[arch])


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _greeted(address: str) -> None:
    """See whether a QMP socket greets: one that has another client does not, and drgn would wait for ever."""
    host, colon, port = address.rpartition(":")
    tcp = bool(colon) and port.isdecimal() and not address.startswith(("/", "."))
    try:
        with socket.socket(socket.AF_INET if tcp else socket.AF_UNIX) as asked:
            asked.settimeout(_GREETING)
            asked.connect((host or "localhost", int(port)) if tcp else address)
            if not asked.recv(1 << 16).startswith(b'{"QMP"'):
                raise BadInput(address, "no QMP socket: it does not greet as one")
    except TimeoutError:
        said = f"no greeting within {_GREETING} s: no QMP socket, or another client has it (it takes one at a time)"
        raise BadInput(address, said) from None
    except (OSError, OverflowError) as error:
        raise BadInput(address, f"cannot be connected to: {getattr(error, 'strerror', None) or error}") from None
