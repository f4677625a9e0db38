"""What is read: a running kernel, a guest, or a dump, made into a drgn program with symbols and types.

drgn knows kallsyms and VMCOREINFO, and no BTF: that comes from `pfnmap_tables.btf`. The kernel's BTF lies in its own
memory between __start_BTF and __stop_BTF. A dump without a VMCOREINFO note still has the note in its memory, which is
looked for.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from drgn import (
    Architecture,
    FaultError,
    FindObjectFlags,
    MissingDebugInfoError,
    Object,
    Platform,
    Program,
    ProgramFlags,
    TypeKind,
)
from drgn.helpers.linux.kallsyms import load_vmlinux_kallsyms

from pfnmap.errors import BadInput, Refused
from pfnmap_tables.btf import LIMIT, Btf, TypeFinder

__all__ = ["Target", "of_core", "of_live", "of_qmp"]

_NOTE: Final = re.compile(rb"VMCOREINFO\0\0(OSRELEASE=[\x20-\x7e\n]{16,65536})")
_CHUNK: Final = 4 << 20
_OVERLAP: Final = 1 << 16
_SCANNED: Final = 16 << 30
"""Bytes of a guest's memory that are looked through for VMCOREINFO."""
_RAM: Final = {Architecture.AARCH64: 1 << 30}
"""Where a guest's memory begins, if not at 0: below are devices, which a read disturbs (QEMU's machine virt)."""
_GREETING: Final = 5
"""Seconds that a QMP socket has to greet."""
_KCORE: Final = "/proc/kcore"

ARCHITECTURES: Final = {"x86_64": Architecture.X86_64, "arm64": Architecture.AARCH64}
"""The plugin of an architecture -> what drgn calls it: those whose tables were read from a real kernel."""
_GLOBALS: Final = {
    "init_pid_ns": "struct pid_namespace",
    "init_task": "struct task_struct",
    "iomem_resource": "struct resource",
    "page_offset_base": "unsigned long",
    "saved_command_line": "char *",
}
"""The variables that are looked at: BTF has types of none that is not per CPU."""


class Target:
    """A program whose memory, symbols and types can be read. `live`: it changes while it is read."""

    def __init__(self, program: Program, name: str, live: bool) -> None:
        """Take a program; find its symbols and types. Raises Refused for what it lacks."""
        self.program = program
        self.name = name
        self.live = live
        platform = program.platform
        found = {drgn: arch for arch, drgn in ARCHITECTURES.items()}
        if platform is None or platform.arch not in found:
            raise Refused(name, f"its architecture is none of {', '.join(ARCHITECTURES)}; --arch says it where it is")
        self.arch = found[platform.arch]
        if not program.flags & ProgramFlags.IS_LINUX_KERNEL:
            raise Refused(name, "no VMCOREINFO in it, which says where the kernel is: is it a Linux guest's memory?")
        try:
            self.vmcoreinfo = program["VMCOREINFO"].string_().decode("ascii", "replace")
            program.register_symbol_finder("pfnmap", load_vmlinux_kallsyms(program), enable_index=0)
        except (LookupError, ValueError, FaultError, MissingDebugInfoError) as error:
            raise Refused(
                name, f"no symbols can be read (kallsyms; VMCOREINFO has them from 6.0 on): {error}"
            ) from None
        self.types = TypeFinder(program, [Btf(self._btf(), f"{name}: BTF")])
        program.register_type_finder("pfnmap", self.types, enable_index=0)
        program.register_object_finder("pfnmap", self._object, enable_index=0)

    @property
    def release(self) -> str:
        """What ``uname -r`` says there."""
        found = re.search(r"^OSRELEASE=(.+)$", self.vmcoreinfo, re.MULTILINE)
        return found[1] if found else ""

    def number(self, name: str) -> int | None:
        """Return a number that VMCOREINFO has (``NUMBER(name)``)."""
        found = re.search(rf"^NUMBER\({re.escape(name)}\)=(-?(?:0x)?[0-9a-f]+)$", self.vmcoreinfo, re.MULTILINE)
        return int(found[1], 0) if found else None

    @property
    def page_size(self) -> int | None:
        """Bytes of a page."""
        found = re.search(r"^PAGESIZE=(\d+)$", self.vmcoreinfo, re.MULTILINE)
        return int(found[1]) if found else None

    def thp(self) -> str | None:
        """Return the setting of transparent_hugepage/enabled, None where it cannot be told."""
        try:
            flags = int.from_bytes(self.program.read(self.symbol("transparent_hugepage_flags"), 8), "little")
            bits = {one.name: one.value for one in self.program.type("enum transparent_hugepage_flag").enumerators}
            always, madvise = bits["TRANSPARENT_HUGEPAGE_FLAG"], bits["TRANSPARENT_HUGEPAGE_REQ_MADV_FLAG"]
        except (LookupError, FaultError, KeyError, TypeError):
            return None
        return "always" if flags >> always & 1 else "madvise" if flags >> madvise & 1 else "never"

    def symbol(self, name: str) -> int:
        """Return the address of a symbol. Raises LookupError."""
        return int(self.program.symbol(name).address)

    def _btf(self) -> bytes:
        try:
            start, end = self.symbol("__start_BTF"), self.symbol("__stop_BTF")
        except LookupError:
            raise Refused(self.name, "this kernel has no BTF (CONFIG_DEBUG_INFO_BTF)") from None
        if not 0 < end - start <= LIMIT:
            raise Refused(self.name, f"its BTF has {end - start} bytes, which nothing real has")
        try:
            return bytes(self.program.read(start, end - start))
        except FaultError as error:
            raise Refused(self.name, f"its BTF cannot be read ({error}): the dump left it out") from None

    def _object(self, program: Program, name: str, flags: FindObjectFlags, filename: str | None) -> Any:
        """Return a variable or a constant (drgn's interface of an object finder)."""
        if flags & FindObjectFlags.VARIABLE and name in _GLOBALS:
            with suppress(LookupError):
                return Object(program, _GLOBALS[name], address=self.symbol(name))
        if flags & FindObjectFlags.CONSTANT and (enum := self._constants.get(name)) is not None:
            return Object(program, *enum)
        return None

    @property
    def _constants(self) -> dict[str, tuple[Any, int]]:
        if not hasattr(self, "_found"):
            found: dict[str, tuple[Any, int]] = {}
            for blob in self.types.blobs:
                for number, row in enumerate(blob.rows, blob.first):
                    if row.kind in (6, 19):  # ENUM, ENUM64
                        enum = self.types.type(blob, number)
                        if enum.kind == TypeKind.ENUM:
                            found |= {one.name: (enum, one.value) for one in enum.enumerators}
            self._found = found
        return self._found


def of_live() -> Target:
    """Return the running kernel. Raises Refused without root or /proc/kcore."""
    program = Program()
    try:
        program.set_kernel()
    except FileNotFoundError:
        raise Refused(_KCORE, "it is not there (CONFIG_PROC_KCORE, or a container hides it); a dump will do") from None
    except PermissionError:
        raise Refused(_KCORE, "only root may read it, and nobody under kernel lockdown; a dump will do") from None
    except (OSError, ValueError, FaultError) as error:
        raise Refused(_KCORE, f"it cannot be read: {error}") from None
    return Target(program, "the running kernel", True)


def of_core(path: str, arch: str | None) -> Target:
    """Return a dump: ELF, makedumpfile's formats, or QEMU's. `arch`: the architecture, where it does not say.

    Raises BadInput for a file that cannot be read, Refused for one that is no dump that is known.
    """
    if not Path(path).is_file():
        raise BadInput(path, "no such file" if not Path(path).exists() else "no file")
    return _opened(path, arch, lambda program: program.set_core_dump(path), lambda: _note_in_file(path), False)


def of_qmp(address: str, arch: str | None) -> Target:
    """Return a running guest, by the address of its QMP socket. Raises BadInput for one that does not answer."""
    _greeted(address)
    return _opened(address, arch, lambda program: program.set_qemu_qmp(address), None, True)


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


def _opened(
    name: str,
    arch: str | None,
    load: Callable[[Program], None],
    note: Callable[[], bytes | None] | None,
    live: bool,
) -> Target:
    """Open a target as it is, and where it does not say that it is Linux once more with the note from its memory."""
    if arch is not None and arch not in ARCHITECTURES:
        raise Refused(name, f"tables of {arch} are not read; those of {', '.join(ARCHITECTURES)} are")
    platform = None if arch is None else Platform(ARCHITECTURES[arch])
    program = Program(platform)
    said = ""
    try:
        load(program)
    except OSError as error:
        raise BadInput(name, f"cannot be read: {error.strerror or error}") from None
    except (ValueError, FaultError, LookupError) as error:
        said = " ".join(str(error).split())
    if not said and program.flags & ProgramFlags.IS_LINUX_KERNEL:
        return Target(program, name, live)
    found = note() if note is not None else _note_in_memory(program)
    if found is None:
        why = said or "no VMCOREINFO in it"
        raise Refused(name, f"no dump of a Linux kernel that is known: {why}")
    if live:  # a second connection would wait for the first to end
        try:
            program.set_linux_kernel_custom(found, live)
        except (ValueError, FaultError, LookupError) as error:
            raise Refused(name, f"its VMCOREINFO is none: {' '.join(str(error).split())}") from None
        return Target(program, name, live)
    again = Program(platform or program.platform, vmcoreinfo=found)
    try:
        load(again)
    except OSError as error:
        raise BadInput(name, f"cannot be read: {error.strerror or error}") from None
    except (ValueError, FaultError, LookupError) as error:
        raise Refused(
            name, f"no dump that is known: {' '.join(str(error).split())}; does --arch say its own?"
        ) from None
    return Target(again, name, live)


def _note_in_file(path: str) -> bytes | None:
    with open(path, "rb") as file:
        return _note(iter(lambda: file.read(_CHUNK), b""))


def _note_in_memory(program: Program) -> bytes | None:
    platform = program.platform
    first = _RAM.get(platform.arch, 0) if platform else 0

    def chunks() -> Iterator[bytes]:
        for start in range(first, first + _SCANNED, _CHUNK):
            try:
                yield bytes(program.read(start, _CHUNK, physical=True))
            except (FaultError, ValueError):
                yield b""

    return _note(chunks())


def _note(chunks: Iterator[bytes]) -> bytes | None:
    """Return the text of the note, as long as its header says."""
    kept = b""
    for chunk in chunks:
        here = kept + chunk
        for found in _NOTE.finditer(here):
            start = found.start() - 12
            name, length = (int.from_bytes(here[start + n : start + n + 4], "little") for n in (0, 4))
            if start >= 0 and name == len("VMCOREINFO") + 1 and found.start(1) + length <= len(here):
                return here[found.start(1) : found.start(1) + length].rstrip(b"\0")
        kept = here[-_OVERLAP:]
    return None
