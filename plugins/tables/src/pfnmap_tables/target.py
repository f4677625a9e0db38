"""A kernel's memory with its symbols and types.

drgn knows kallsyms and VMCOREINFO, and no BTF: that comes from `pfnmap_tables.btf`. The kernel's BTF lies in its own
memory between __start_BTF and __stop_BTF, that of its modules where the list btf_modules says.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, Final

from drgn import (
    Architecture,
    FaultError,
    FindObjectFlags,
    Object,
    Program,
)
from drgn.helpers.linux.kallsyms import load_vmlinux_kallsyms
from drgn.helpers.linux.list import list_for_each_entry

from pfnmap.errors import BadInput, Refused
from pfnmap_tables.btf import LIMIT, Btf, TypeFinder
from pfnmap_tables.memory import DAMAGE, Memory
from pfnmap_tables.typefile import TypeFile

__all__ = ["ARCHITECTURES", "Target"]

ARCHITECTURES: Final = {"x86_64": Architecture.X86_64, "arm64": Architecture.AARCH64}
"""The plugin of an architecture -> what drgn calls it: those whose tables were read from a real kernel."""
_GLOBALS: Final = {
    "btf_modules": "struct list_head",
    "init_pid_ns": "struct pid_namespace",
    "init_task": "struct task_struct",
    "iomem_resource": "struct resource",
    "page_offset_base": "unsigned long",
    "saved_command_line": "char *",
}
"""The variables that are looked at: BTF has types of none that is not per CPU."""
_FIRST_TASK: Final = b"swapper"
"""How the kernel calls its first task: so a file of types that is not this kernel's is told."""
_MODULES: Final = 1 << 12
_HINT: Final = "--types FILE can say them: its vmlinux with debug information, or its /sys/kernel/btf/vmlinux"


class Target:
    """A kernel whose memory, symbols and types can be read. `live`: it changes while it is read."""

    def __init__(self, memory: Memory, note: bytes, name: str, live: bool, types: TypeFile | None = None) -> None:
        """Take a memory with its VMCOREINFO; find its symbols and types. Raises Refused for what it lacks."""
        self.memory = memory
        self.name = name
        self.live = live
        platform = memory.platform
        found = {drgn: arch for arch, drgn in ARCHITECTURES.items()}
        if platform is None or platform.arch not in found:
            raise Refused(name, f"its architecture is none of {', '.join(ARCHITECTURES)}; --arch says it where it is")
        self.arch = found[platform.arch]
        self.vmcoreinfo = note.decode("ascii", "replace")
        try:
            self.program = memory.program(note, live)
            symbols = load_vmlinux_kallsyms(memory.raw if memory.local else self.program)
        except DAMAGE as error:
            raise Refused(
                name, f"no symbols can be read (kallsyms; VMCOREINFO has them from 6.0 on): {error}"
            ) from None
        self.program.register_symbol_finder("pfnmap", symbols, enable_index=0)
        self.program.register_object_finder("pfnmap", self._object, enable_index=0)
        self.btf: TypeFinder | None = None
        self._find_types(types)
        self._check_types(types)

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
        except DAMAGE:
            return None
        return "always" if flags >> always & 1 else "madvise" if flags >> madvise & 1 else "never"

    def symbol(self, name: str) -> int:
        """Return the address of a symbol. Raises LookupError."""
        return int(self.program.symbol(name).address)

    def _find_types(self, said: TypeFile | None) -> None:
        """Make the kernel's types known, and where they are BTF its modules'."""
        if said is not None and said.btf is None:
            self._load_dwarf(said.path)
            return
        kernel = said.btf if said is not None and said.btf is not None else Btf(self._own_btf(), f"{self.name}: BTF")
        self.btf = TypeFinder(self.program, [kernel])
        self.program.register_type_finder("pfnmap", self.btf, enable_index=0)
        self.btf.blobs += self._btf_of_modules(kernel)

    def _own_btf(self) -> bytes:
        try:
            start, end = self.symbol("__start_BTF"), self.symbol("__stop_BTF")
        except LookupError:
            raise Refused(self.name, f"this kernel has no BTF (CONFIG_DEBUG_INFO_BTF); {_HINT}") from None
        return self._blob(start, end - start, f"; {_HINT}")

    def _blob(self, start: int, length: int, hint: str = "") -> bytes:
        if not 0 < length <= LIMIT:
            raise Refused(self.name, f"its BTF has {length} bytes, which nothing real has{hint}")
        try:
            return bytes(self.program.read(start, length))
        except FaultError as error:
            raise Refused(self.name, f"its BTF cannot be read ({error}): the dump left it out{hint}") from None

    def _btf_of_modules(self, kernel: Btf) -> list[Btf]:
        """Return the BTF of modules that there is: those of vfio say which device a file is of."""
        found: list[Btf] = []
        with suppress(*DAMAGE, Refused, BadInput):
            for one, _ in zip(
                list_for_each_entry("struct btf_module", self.program["btf_modules"].address_of_(), "list"),
                range(_MODULES),
                strict=False,
            ):
                name = one.btf.name.string_().decode("utf-8", "replace")
                if name.startswith("vfio"):
                    data = self._blob(one.btf.data.value_(), one.btf.data_size.value_())
                    found.append(Btf(data, f"{self.name}: BTF of {name}", kernel))
        return found

    def _load_dwarf(self, path: str) -> None:
        """Let drgn read a file's DWARF. Raises BadInput for one of another kernel."""
        module = self.program.main_module("kernel", create=True)
        built = re.search(r"^BUILD-ID=((?:[0-9a-f]{2})+)$", self.vmcoreinfo, re.MULTILINE)
        if built:
            module.build_id = bytes.fromhex(built[1])
        try:
            module.try_file(path, force=built is None)
        except (OSError, *DAMAGE) as error:
            raise BadInput(path, f"its debug information cannot be read: {error}") from None
        if module.wants_debug_file():
            raise BadInput(path, f"it is of another kernel: the build ID of {self.name} is {built and built[1]}")

    def _check_types(self, said: TypeFile | None) -> None:
        """Raises BadInput for a file of types that is another kernel's, Refused where the kernel's own do not fit."""
        try:
            name = self.program["init_task"].comm.string_()
        except (*DAMAGE, BadInput):
            name = b""
        if not name.startswith(_FIRST_TASK):
            why = f"by them the first task is not called {_FIRST_TASK.decode()}"
            if said is not None:
                raise BadInput(said.path, f"its types are not those of {self.name} ({self.release}): {why}")
            raise Refused(self.name, f"its types are not its own: {why}; {_HINT}")

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
            for enum in self.btf.enums() if self.btf else ():
                found |= {one.name: (enum, one.value) for one in enum.enumerators}
            self._found = found
        return self._found
