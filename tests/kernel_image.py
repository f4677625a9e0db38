"""A made-up kernel's memory as an ELF dump: symbols, types, one process that maps BARs, their page tables.

Where the members of structures lie is asked of drgn's own reading of the compiler's DWARF (data/kernel_image/kernel.c,
built with ``gcc -g -Wl,--build-id=0x0123456789abcdef...``, made BTF by ``pahole -J``), so that what reads BTF is held
against it.
"""

from __future__ import annotations

import struct
from pathlib import Path

import drgn

DATA = Path(__file__).parent / "data/kernel_image"
DWARF, BTF = DATA / "kernel.dwarf", DATA / "kernel.btf"
BUILD_ID = "0123456789abcdef0123456789abcdef01234567"
LINEAR, BASE = 0xFFFF_8880_0000_0000, 1 << 20
"""Where the linear map begins, and the physical address where memory does."""
PAGE, MIB, GIB = 4096, 1 << 20, 1 << 30
PID, BDF, PHYS = 126, "0000:18:00.0", 8 * GIB
BAR = 2
LARGE, SMALL = 0x7000_0000_0000, 0x7100_0000_1000
"""Where BAR 2 is mapped, 4 GiB of it and 16 MiB, the second a page off."""
TABLE, PUD_LEAF, PMD_LEAF, PTE_LEAF = 0x67, 0x80000000000002F7, 0x80000000000002B7, 0x8000000000000237
"""Entries as 6.12.117 has them for such mappings."""


def types():
    """Return a program that knows the structures by DWARF."""
    program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    module = program.main_module("types", create=True)
    module.try_file(DWARF, force=True)
    return program


class Image:
    """Memory, all of it in the linear map."""

    def __init__(self) -> None:
        self.program = types()
        self.memory = bytearray(PAGE)
        self.symbols: dict[str, int] = {}

    def place(self, size: int, align: int = 8) -> int:
        """Return the address of new memory of zeros."""
        self.memory += bytes(-len(self.memory) % align)
        at = len(self.memory)
        self.memory += bytes(size)
        return LINEAR + BASE + at

    def write(self, address: int, content: bytes) -> int:
        at = address - LINEAR - BASE
        self.memory[at : at + len(content)] = content
        return address

    def text(self, said: str) -> int:
        content = said.encode() + b"\0"
        return self.write(self.place(len(content)), content)

    def offset(self, kind: str, member: str) -> int:
        return drgn.offsetof(self.program.type(f"struct {kind}"), member)

    def struct(self, kind: str, **members: int | bytes) -> int:
        """Return the address of a new structure; ``a__b`` is member b of member a."""
        return self.fill(self.place(self.program.type(f"struct {kind}").size, 256), kind, **members)

    def fill(self, at: int, kind: str, **members: int | bytes) -> int:
        for name, value in members.items():
            path = name.replace("__", ".")
            size = 8 if isinstance(value, bytes) else self.size(kind, path)
            content = value if isinstance(value, bytes) else value.to_bytes(size, "little")
            self.write(at + self.offset(kind, path), content)
        return at

    def size(self, kind: str, path: str) -> int:
        found = drgn.Object(self.program, f"struct {kind}", address=0)
        for part in path.split("."):
            found = found.member_(part)
        return drgn.sizeof(found)

    def words(self, table: int, **entries: int) -> None:
        for index, word in entries.items():
            self.write(table + 8 * int(index[1:]), struct.pack("<Q", word))

    def kallsyms(self) -> dict[str, int]:
        """Write the table of symbols; return what VMCOREINFO says of it."""
        names = b"".join(bytes([len(name) + 1]) + b"D" + name.encode() for name in self.symbols)
        tokens, index = bytearray(), []
        for n in range(256):
            index.append(len(tokens))
            tokens += (bytes([n]) if 33 <= n < 127 else b"") + b"\0"
        offsets = struct.pack(f"<{len(self.symbols)}I", *(at - LINEAR for at in self.symbols.values()))
        parts = {
            "kallsyms_names": names,
            "kallsyms_num_syms": struct.pack("<I", len(self.symbols)),
            "kallsyms_token_table": bytes(tokens),
            "kallsyms_token_index": struct.pack("<256H", *index),
            "kallsyms_offsets": offsets,
            "kallsyms_relative_base": struct.pack("<Q", LINEAR),
        }
        return {name: self.write(self.place(len(content)), content) for name, content in parts.items()}

    def table(self) -> int:
        return self.place(PAGE, PAGE)


def kernel(*, btf: bool = True, release: str = "6.12.117") -> tuple[Image, str]:
    """Return the memory of a kernel, with its own BTF or without, and the text of its VMCOREINFO."""
    image = Image()
    tables = _tables(image)
    bar = image.struct("resource", start=PHYS, end=PHYS + 8 * GIB - 1, name=image.text(BDF))
    bus = image.struct("resource", start=GIB, end=64 * GIB, name=image.text("PCI Bus 0000:00"), child=bar)
    image.symbols["iomem_resource"] = image.struct("resource", end=(1 << 46) - 1, child=bus)
    pci = image.struct("pci_dev", devfn=8, dev__kobj__name=image.text(BDF))
    resource = image.size("pci_dev", "resource") // 6
    image.fill(
        pci + image.offset("pci_dev", "resource") + BAR * resource, "resource", start=PHYS, end=PHYS + 8 * GIB - 1
    )
    device = image.struct("vfio_device", dev=pci + image.offset("pci_dev", "dev"))
    name = image.struct("dentry", d_name__name=image.text("[vfio-device]"))
    held = image.struct("vfio_device_file", device=device)
    file = image.struct("file", f_path__dentry=name, private_data=held)
    vmas = []
    for start, length in ((LARGE, 4 * GIB), (SMALL, 16 * MIB)):
        ends = {"vm_start": start, "vm_end": start + length}
        vmas.append((start, start + length, image.struct("vm_area_struct", **ends, vm_pgoff=BAR << 28, vm_file=file)))
    mm = image.struct("mm_struct", pgd=tables, mm_mt__ma_root=_maple(image, vmas))
    first, task = image.struct("task_struct", comm=b"swapper/0"), image.struct("task_struct", pid=PID, tgid=PID, mm=mm)
    node = image.offset("task_struct", "tasks")
    for one, other in ((first, task), (task, first)):
        image.fill(one, "task_struct", tasks__next=other + node, tasks__prev=other + node)
    image.symbols |= {"init_task": first, "_stext": LINEAR, "swapper_pg_dir": image.table()}
    image.symbols["page_offset_base"] = image.write(image.place(8), struct.pack("<Q", LINEAR))
    image.symbols["transparent_hugepage_flags"] = image.write(image.place(8), struct.pack("<Q", 1 << 1))
    if btf:
        content = BTF.read_bytes()
        at = image.symbols["__start_BTF"] = image.write(image.place(len(content)), content)
        image.symbols["__stop_BTF"] = at + len(content)
    symbols = {**image.kallsyms(), **{name: image.symbols[name] for name in ("swapper_pg_dir", "_stext")}}
    note = f"OSRELEASE={release}\nBUILD-ID={BUILD_ID}\nPAGESIZE={PAGE}\n"
    note += "".join(f"SYMBOL({name})={at:x}\n" for name, at in symbols.items())
    return image, note + "NUMBER(phys_base)=0\nNUMBER(pgtable_l5_enabled)=0\nKERNELOFFSET=0\n"


def _maple(image: Image, vmas: list[tuple[int, int, int]]) -> int:
    """Return the root of a tree that is one leaf: gaps and vmas in turn."""
    node = image.struct("maple_node")
    pivots, slots = [], []
    for start, end, vma in vmas:
        pivots += [start - 1, end - 1]
        slots += [0, vma]
    for n, (pivot, slot) in enumerate(zip(pivots, slots, strict=True)):
        image.write(node + image.offset("maple_range_64", "pivot") + 8 * n, struct.pack("<Q", pivot))
        image.write(node + image.offset("maple_range_64", "slot") + 8 * n, struct.pack("<Q", slot))
    image.fill(node, "maple_range_64", meta__end=len(pivots))
    return node | 1 << 3 | 2  # maple_leaf_64, and the mark of a node


def _tables(image: Image) -> int:
    """Return the top table: of the large mapping 2 x 1G, then 3 x 2M; of the small one 4 x 4K."""
    pgd, pud, pud_small, pmd, pmd_small, pte = (image.table() for _ in range(6))
    image.words(pgd, **{f"n{LARGE >> 39}": pud - LINEAR | TABLE, f"n{SMALL >> 39}": pud_small - LINEAR | TABLE})
    image.words(pud, n0=PHYS | PUD_LEAF, n1=PHYS + GIB | PUD_LEAF, n2=pmd - LINEAR | TABLE)
    image.words(pmd, **{f"n{n}": PHYS + 2 * GIB + n * 2 * MIB | PMD_LEAF for n in range(3)})
    image.words(pud_small, **{f"n{SMALL >> 30 & 511}": pmd_small - LINEAR | TABLE})
    image.words(pmd_small, **{f"n{SMALL >> 21 & 511}": pte - LINEAR | TABLE})
    image.words(pte, **{f"n{1 + n}": PHYS + n * PAGE | PTE_LEAF for n in range(4)})
    return pgd


def elf(memory: bytes, note: str | None, machine: int = 62) -> bytes:
    """Return a dump: VMCOREINFO as a note (None: none), the memory as a segment of the linear map."""
    described = b""
    if note is not None:
        text = note.encode()
        described = struct.pack("<III", 11, len(text), 0) + b"VMCOREINFO\0\0" + text
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 4, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    at = 64 + 2 * 56
    head += struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, len(described), len(described), 4)
    start = -(-(at + len(described)) // PAGE) * PAGE
    head += struct.pack("<IIQQQQQQ", 1, 7, start, LINEAR + BASE, BASE, len(memory), len(memory), PAGE)
    return (head + described).ljust(start, b"\0") + memory
