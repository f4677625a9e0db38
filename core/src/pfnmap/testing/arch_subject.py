"""An architecture linked as one machine: what it claims there, and the entries that checks are made with.

The entries are those that the mm core can come to: ``pfn_X(pfn, prot)`` of a mapping that can be accessed, made huge,
then any sequence of what a fault, a fork, an mprotect do to a leaf. Laws are not asked of other words; that the ops are
total and bounded on any word is a check of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from pfnmap.contract.arch import Arch
from pfnmap.contract.entry import LEVELS, Level
from pfnmap.contract.geometry import Bits, WordFormat
from pfnmap.contract.pgtable_ops import OPTIONAL_OPS
from pfnmap.errors import Unwritten
from pfnmap.hookspecs import ENTRY_HOOKS
from pfnmap.kernel import Kernel
from pfnmap.vm_flags import VM_EXEC, VM_READ, VM_SHARED, VM_WRITE

__all__ = ["LEAF_LEVELS", "ArchSubject", "Leaf", "allowed", "capabilities", "shown"]

LEAF_LEVELS: Final[tuple[Level, ...]] = ("pte", "pmd", "pud")
"""Levels at which the mm core installs leaves of a pfnmap."""

_ACCESS = VM_READ | VM_WRITE | VM_EXEC
_ADDRESS_BITS_UNSAID = 40  # every 64-bit machine of Linux has these
_CACHE_MODES = ("", "pgprot_noncached", "pgprot_writecombine", "pgprot_device")
_HISTORIES = 6  # entries for each protection, cache mode and choice of special


@dataclass(frozen=True)
class Leaf:
    """A leaf that the mm core can come to: its pfn, the flags and pgprot of its vma, and what was done to it."""

    entry: int
    pfn: int
    vm_flags: int
    prot: int
    special: bool
    history: tuple[str, ...] = ()


def capabilities(kernel: Kernel) -> frozenset[str]:
    """Return what a linked architecture claims, derived from the kernel and from what the plugin declares.

    The name of every op that it provides itself; ``leaf:X``: leaves of level X are used for user memory (transparent
    huge pages); ``pfnmap:X``: also for pfnmaps (``config-pfnmap:X``: Kconfig says so); ``walked:X``: the level has
    tables of its own; ``slots:X``: it is the ops of this level that work on the entries of a walked table, else
    ``folded:X``; ``shorter-walks``: new processes have fewer levels; ``words``: `word_format` says how the CPU reads
    every walked level, ``walker-leaf:X`` that it knows leaves of level X, and ``permissions``: also what user space
    may do with a leaf, ``stores`` and ``uncached``: what tells a writable leaf and device memory, ``software``: which
    bits are the kernel's own, ``sizes``: how a leaf says its size, ``reserved``: which bits must be 0; ``soft-dirty``:
    MEM_SOFT_DIRTY is set; ``no-huge-pages``: TRANSPARENT_HUGEPAGE is not; ``no-huge-puds``: it is, without
    HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD; ``huge-pfnmap``: the release has huge pfnmaps; ``emulator``: `mmu_cpu` names an
    emulated CPU that boots like this; every switch of the CPU state that is on (``hw_access_dirty``).
    """
    ops, geometry = kernel.ops, kernel.geometry
    found = {name for name, owner in ops.owners.items() if owner == "arch"}
    found.add("leaf:pte")
    if ops.has_transparent_hugepage():
        found.add("leaf:pmd")
        if ops.has_transparent_pud_hugepage() and kernel.config.enabled("HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD"):
            found.add("leaf:pud")
    for level in LEAF_LEVELS:
        special = kernel.config.enabled("ARCH_HAS_PTE_SPECIAL") if level == "pte" else kernel.pfnmap(level)
        if special and level != "pte":
            found.add(f"config-pfnmap:{level}")
        if special and f"leaf:{level}" in found:
            found.add(f"pfnmap:{level}")
    walked_levels = [walked.name for walked in geometry.walk]
    found |= {f"walked:{name}" for name in walked_levels}
    if geometry.new_process_levels:
        found.add("shorter-walks")
    slots = {"pte", *(LEVELS[LEVELS.index(below) + 1] for below in walked_levels[1:])}
    found |= {f"{'slots' if level in slots else 'folded'}:{level}" for level in LEVELS}
    formats = [_word_format(kernel.arch, walked.name) for walked in geometry.walk]
    if all(how is not None for how in formats):
        found.add("words")
        found |= {name for name, fields in _SAID.items() if all(getattr(formats[-1], f) is not None for f in fields)}
        told = {LEVELS[LEVELS.index(below) + 1]: how for below, how in zip(walked_levels[1:], formats, strict=False)}
        found |= {f"walker-leaf:{level}" for level, how in told.items() if how and how.table and how.table[0]}
    if kernel.has("huge-pfnmap"):
        found.add("huge-pfnmap")
    if kernel.config.enabled("MEM_SOFT_DIRTY"):
        found.add("soft-dirty")
    if not kernel.config.enabled("TRANSPARENT_HUGEPAGE"):
        found.add("no-huge-pages")
    elif not kernel.config.enabled("HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD"):
        found.add("no-huge-puds")
    emulated = kernel.arch.mmu_cpu
    if emulated is not None and emulated.state.items() <= kernel.cpu.items():
        found.add("emulator")
    found |= {key for key, value in kernel.cpu.items() if value is True}
    return frozenset(found)


_SAID = {
    "permissions": ("load", "execute"),
    "stores": ("load", "store"),
    "uncached": ("uncached",),
    "software": ("software", "store"),
    "sizes": ("size",),
    "reserved": ("reserved",),
}
"""Capabilities that come of what a word format says: capability -> fields."""


def _word_format(arch: Arch, level: Level) -> WordFormat | None:
    try:
        return arch.word_format(level)
    except Unwritten:
        return None


class ArchSubject:
    """One linked architecture; see the module's text."""

    def __init__(self, kernel: Kernel, machine: str) -> None:
        self.kernel = kernel
        self.machine = machine
        self.ops = kernel.ops
        self.geometry = kernel.geometry
        self._leaves: dict[Level, tuple[Leaf, ...]] = {}
        self._mprotected: dict[tuple[int, int], int] = {}

    @property
    def arch(self) -> Arch:
        """The architecture."""
        return self.kernel.arch

    @cached_property
    def capabilities(self) -> frozenset[str]:
        """What it claims."""
        return capabilities(self.kernel)

    # Ops

    def has(self, name: str) -> bool:
        """Tell whether an op is there at all."""
        return self.ops.owners.get(name, "absent") != "absent"

    def op(self, level: Level, name: str) -> Callable[..., Any]:
        """Return X_name of a level; mkwrite for a vma that may be written."""
        function: Callable[..., Any] = getattr(self.ops, f"{level}_{name}")
        if name == "mkwrite" and f"{level}_mkwrite" in ENTRY_HOOKS:
            return lambda entry: function(entry, VM_READ | VM_WRITE | VM_SHARED)
        return function

    def changes(self, level: Level) -> Mapping[str, Callable[[int], int]]:
        """Return what the mm core may do to a leaf that leaves it the same leaf: op -> function."""
        names = ("mkyoung", "mkold", "mkdirty", "mkclean", "wrprotect", "mkwrite", "mksoft_dirty", "clear_soft_dirty")
        return {name: self.op(level, name) for name in names if self.has(f"{level}_{name}")}

    # Entries

    def word_format(self, level: Level) -> WordFormat:
        """Return the format that the plugin declares of the slots that a level's ops work on; for checks that need
        ``words``."""
        walked = {w.name for w in self.geometry.walk}
        found = self.arch.word_format(next(name for name in LEVELS[LEVELS.index(level) :] if name in walked))
        assert found is not None
        return found

    def permissions(self, level: Level) -> tuple[Bits, Bits]:
        """Return what a leaf holds that user space may execute and read; for checks that need ``permissions``."""
        found = self.word_format(level)
        assert found.execute is not None
        assert found.load is not None
        return found.execute, found.load

    @cached_property
    def physical_mask(self) -> int:
        """The address bits (bytes) of a page: what the declared format of a PTE can hold, or the lowest 40."""
        found = _word_format(self.arch, "pte")
        if found is None:
            return (1 << _ADDRESS_BITS_UNSAID) - self.geometry.PAGE_SIZE
        mask = 0
        for field, shift in found.address:
            mask |= field << shift if shift >= 0 else field >> -shift
        return mask & -self.geometry.PAGE_SIZE

    def highest_pfn(self, level: Level) -> int:
        """Return the highest pfn that a leaf of a level can map."""
        return (self.physical_mask & -self.geometry.size(level)) >> self.geometry.PAGE_SHIFT

    def pfns(self, level: Level) -> list[int]:
        """Return pfns for leaves of a level: 0, each address bit alone, some at random; all within 40 bits."""
        highest = self.highest_pfn(level) & ((1 << (_ADDRESS_BITS_UNSAID - self.geometry.PAGE_SHIFT)) - 1)
        draw = random.Random(f"pfns {level}")
        single = [1 << n for n in range(highest.bit_length()) if highest >> n & 1]
        return [0, *single, *(draw.getrandbits(64) & highest for _ in range(8))]

    def tables(self) -> list[int]:
        """Return physical addresses (bytes) of tables: aligned to a table of any level, some of them as high as the
        kernel's linear map reaches."""
        mask = self._table_mask & self.linear_mask
        draw = random.Random("tables")
        return [mask & -mask, *(draw.getrandbits(64) & mask for _ in range(16)), mask]

    @property
    def linear_mask(self) -> int:
        """The address bits (bytes) that the kernel's linear map reaches."""
        return (1 << (self.arch.linear_map.bit_length() - 1)) - 1

    def beyond_linear_map(self) -> list[int]:
        """Return physical addresses (bytes) aligned to tables that the kernel's linear map does not reach; none where
        it reaches all."""
        draw = random.Random("beyond")
        drawn = [1 << n for n in range(64)] + [draw.getrandbits(64) for _ in range(16)]
        return [pa for pa in (self._table_mask & drawn for drawn in drawn) if pa >= self.arch.linear_map]

    @cached_property
    def _table_mask(self) -> int:
        """The address bits (bytes) of a page that is aligned to a table of any level."""
        align = max(*(w.ptrs * 8 for w in self.geometry.walk), self.geometry.PAGE_SIZE)
        return self.physical_mask & -align

    def prot(self, vm_flags: int, cache: str = "") -> int:
        """Return the pgprot of a mapping: of its VM_ flags, with a cache mode."""
        prot: int = self.ops.vm_get_page_prot(vm_flags)
        return getattr(self.ops, cache)(prot) if cache else prot

    def mprotected(self, prot: int, vm_flags: int) -> int:
        """Return the pgprot that mprotect to these VM_ flags makes of one: it keeps the caching."""
        if (prot, vm_flags) not in self._mprotected:
            self._mprotected[prot, vm_flags] = self.ops.pgprot_modify(prot, self.prot(vm_flags))
        return self._mprotected[prot, vm_flags]

    def prots(self) -> list[int]:
        """Return the pgprots of mappings that can be accessed, in every cache mode."""
        flags = [f for f in range(16) if f & _ACCESS]
        return list(dict.fromkeys(self.prot(f, cache) for f in flags for cache in _CACHE_MODES))

    def fresh(self, level: Level, pfn: int, prot: int) -> int:
        """Return the leaf that an insert begins with: pfn_X, and mkhuge above the PTE."""
        entry: int = getattr(self.ops, f"pfn_{level}")(pfn, prot)
        return entry if level == "pte" else self.op(level, "mkhuge")(entry)

    def address_bits(self, level: Level) -> int:
        """Return the bits of a leaf that hold its address, as the plugin's own pfn_X fills them in."""
        prot = self.prot(VM_READ | VM_SHARED)
        return self.fresh(level, self.highest_pfn(level), prot) ^ self.fresh(level, 0, prot)

    def leaves(self, level: Level) -> tuple[Leaf, ...]:
        """Return leaves that the mm core can come to; always the same ones."""
        if level not in self._leaves:
            self._leaves[level] = tuple(self._grow(level))
        return self._leaves[level]

    def _grow(self, level: Level) -> list[Leaf]:
        draw = random.Random(f"leaves {level}")
        pfns = self.pfns(level)
        special = (False, True) if f"pfnmap:{level}" in self.capabilities else (False,)
        return [
            self._grown(level, draw, draw.choice(pfns), flags, cache, is_special, length)
            for flags in range(16)
            if flags & _ACCESS
            for cache in _CACHE_MODES
            for is_special in special
            for length in range(_HISTORIES)
        ]

    def _grown(
        self, level: Level, draw: random.Random, pfn: int, flags: int, cache: str, special: bool, length: int
    ) -> Leaf:
        prot = self.prot(flags, cache)
        entry = self.fresh(level, pfn, prot)
        history = [f"pfn_{level}({pfn:#x}, {prot:#x})", *([f"{level}_mkhuge"] if level != "pte" else [])]
        if special:
            entry = self.op(level, "mkspecial")(entry)
            history.append(f"{level}_mkspecial")
        changes = self.changes(level)
        for _ in range(length):
            names = [name for name in changes if allowed(name, flags)]
            if self.has(f"{level}_modify"):
                names += ["modify"] * 2
            if not names:
                break
            name = draw.choice(names)
            if name == "modify":
                flags = draw.randrange(8) | flags & VM_SHARED
                prot = self.mprotected(prot, flags)
                entry = self.op(level, "modify")(entry, prot)
                history.append(f"{level}_modify({prot:#x})")
            else:
                entry = changes[name](entry)
                history.append(f"{level}_{name}")
        return Leaf(entry, pfn, flags, prot, special, tuple(history))

    def words(self, level: Level | None = None) -> list[int]:
        """Return any words: 0, all ones, each bit alone, some at random, some leaves."""
        draw = random.Random(f"words {level}")
        known = self.leaves(level)[::7] if level and f"leaf:{level}" in self.capabilities else ()
        singles = (1 << n for n in range(64))
        return [0, (1 << 64) - 1, *singles, *(draw.getrandbits(64) for _ in range(32)), *(leaf.entry for leaf in known)]

    def elementwise(self) -> dict[str, tuple[Callable[..., Any], int, tuple[int, ...]]]:
        """Return the ops on entries and pgprots: name -> (function, how many inputs are words, the plain inputs)."""
        found: dict[str, tuple[Callable[..., Any], int, tuple[int, ...]]] = {}
        for name in sorted(self.ops.owners):
            if not self.has(name) or name in _NOT_ELEMENTWISE:
                continue
            words = 2 if name.startswith("pfn_") or name.endswith(("_modify", "_set_access_flags")) else 1
            plain: tuple[int, ...] = ()
            if name.endswith("_access_permitted"):
                plain = (1,)
            elif name.endswith("_mkwrite") and name not in OPTIONAL_OPS:
                plain = (VM_READ | VM_WRITE | VM_SHARED,)
            found[name] = (getattr(self.ops, name), words, plain)
        return found


_NOT_ELEMENTWISE = frozenset(
    name
    for name in ENTRY_HOOKS
    if name.startswith(("track_", "untrack_", "pfnmap_", "io", "mem", "arch_", "has_")) or name == "vm_get_page_prot"
) | {"pgprot_modify"}
"""Hooks that take no entries, and pgprot_modify, which compares pgprots as values."""


def allowed(name: str, flags: int) -> bool:
    """Tell whether the mm core does this to a leaf of a vma with these flags."""
    if name in ("mkwrite", "mkdirty"):
        return bool(flags & VM_WRITE)
    return name != "mkyoung" or bool(flags & _ACCESS)


def shown(level: Level, leaf: Leaf) -> str:
    """Return how to make a leaf again, for messages."""
    return f"{leaf.entry:#x} (made by {', '.join(leaf.history)})"
