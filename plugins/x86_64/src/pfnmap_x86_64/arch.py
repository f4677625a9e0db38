"""X86_64: the architecture, put together, and its CPU.

The CPU is the one of the recordings (an emulator's), where they tell it from others: it takes a 1G leaf whether or not
it has the feature (FINDINGS F10), and it marks an old 1G leaf accessed even if it then refuses the access.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pfnmap import Has, Level, MmuCpu, Module, WordFormat, hookimpl
from pfnmap.contract.fault import SEGV_ACCERR, SEGV_PKUERR
from pfnmap.kconfig import fragment
from pfnmap.vm_flags import VM_EXEC, VM_READ, VM_WRITE

from .bits import (
    ACCESSED,
    DIRTY,
    PAT,
    PAT_LARGE,
    PCD,
    PRESENT,
    PWT,
    RW,
    USER,
    VM_PKEY_MASK,
    VM_SHADOW_STACK,
    clear,
)
from .memtype import CacheMode
from .p4d import UpperOps
from .pat import Pat, PatOps
from .pgprot import PgprotOps
from .pmd import PmdOps
from .pte import PteOps
from .pud import PudOps

__all__ = ["X86_64"]


_REP_MOVSB = 64
"""From so many bytes on a copy of user memory is not by words."""


class X86_64(PteOps, PmdOps, PudOps, UpperOps, PgprotOps, PatOps):
    """x86-64 with 4 or 5 levels of 4K pages.

    `cpu` keys: `la57` (5 levels, if PGTABLE_LEVELS is 5), `sme_mask` (the memory encryption bit as a mask, 0 without),
    `shadow_stack`, `pku` (protection keys), `nx`, `pti` (page table isolation is on), `pdpe1gb` (1G pages; without
    effect, as recorded), `hw_access_dirty` (always on), `mtrr_write_back` (the firmware's MTRRs say write-back of
    device memory above 4 GiB, as the recorded machine's do: pat.dev_mem), `phys_bits` (width of physical addresses,
    which limits a KVM guest's).
    """

    name: ClassVar[str] = "x86_64"
    aliases: ClassVar[tuple[str, ...]] = ("amd64", "x64", "x86_64_v2", "x86_64_v3")
    config_symbol: ClassVar[str] = "X86_64"
    module: ClassVar[type[Module]] = Pat
    cpu_defaults: ClassVar[Mapping[str, object]] = {
        "la57": False,
        "sme_mask": 0,
        "shadow_stack": False,
        "pdpe1gb": True,
        "pti": False,
        "pku": True,
        "nx": True,
        "hw_access_dirty": True,
        "mtrr_write_back": False,
        "phys_bits": 46,
    }

    machines: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "6.1.192": {"release": "6.1.192"},
        "la57 pti": {"cpu": {"la57": True, "pti": True}},
        "sme": {"given": {"AMD_MEM_ENCRYPT": "y"}, "cpu": {"sme_mask": 1 << 47}},
        "shadow stack": {"given": {"X86_USER_SHADOW_STACK": "y"}, "cpu": {"shadow_stack": True}},
        "soft dirty": {"given": {"MEM_SOFT_DIRTY": "y"}},
        "6.12.94": {"release": "6.12.94"},
    }
    expected_failures: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("modify-keeps:pmd@6.12.94", "dirty-survives:pmd@6.12.94"),
        "FINDINGS F24: pmd_modify of this release drops dirty",
    )

    mmu_cpu = MmuCpu("pfnmap_x86_64.emulated_cpu:X86_64", {"sme_mask": 0, "nx": True, "pti": False})
    """With page table isolation the CPU runs on another top table in user mode than the mm core's."""

    @classmethod
    def cpu_of(cls, cpuinfo: Mapping[str, str]) -> Mapping[str, object]:
        """Return what flags and address sizes tell (arch/x86/kernel/cpu/proc.c). The kernel clears la57 where it does
        not use it, and shows a feature's flag only where it has it on."""
        flags, sizes = cpuinfo.get("flags", "").split(), cpuinfo.get("address sizes", "").split()
        if not flags:
            return {}
        names = {
            "la57": "la57",
            "pdpe1gb": "pdpe1gb",
            "pti": "pti",
            "nx": "nx",
            "ospke": "pku",
            "user_shstk": "shadow_stack",
        }
        told: dict[str, object] = {key: flag in flags for flag, key in names.items()}
        if sizes[1:3] == ["bits", "physical,"] and sizes[0].isdecimal():
            told["phys_bits"] = int(sizes[0])
        return told

    def word_format(self, level: Level) -> WordFormat:
        """See `pfnmap.Arch.word_format`. Source: AMD's and Intel's manuals, "4-level paging and 5-level paging".

        Bit 0: present; bit 1: writable; bit 2: user; bits 3 and 4: write-through and cache disable, of which the first
        alone is write-combining in Linux's PAT; bits 5 and 6: accessed and dirty; bit 63: no
        execution; bit 7 of a PDE and a PDPTE: page size; addresses end at bit 51, less a bit that memory encryption
        takes; bits 11:9 and 58:52 are ignored. Bits 62:59 are the protection key where there are such (CR4.PKE), of
        which Linux refuses a process all but key 0, and are ignored elsewhere. Reserved are bit 63 without EFER.NXE,
        and of a large leaf the bits from 13 up to its address.
        """
        shift = next(walked.shift for walked in self.geometry.walk if walked.name == level)
        below_52 = clear((1 << 52) - (1 << 12), self.enc)
        table = {"pte": None, "pmd": (1 << 7, 0), "pud": (1 << 7, 0)}.get(level, (0, 0))
        address, next_table = ((clear(below_52, (1 << shift) - 1), 0),), ((below_52, 0),)
        no_execute = 0 if self.unsupported else 1 << 63
        keys = 0xF << 59 if self.denied_keys else 0
        return WordFormat(
            (1, 1),
            table,
            address,
            next_table,
            load=(1 << 2 | keys, 1 << 2),
            execute=(1 << 2 | no_execute, 1 << 2),
            store=(6 | keys, 6),
            uncached=(1 << 4, 1 << 4),
            combining=(3 << 3, 1 << 3),
            software=7 << 9 | (0x7F if keys else 0x7FF) << 52,
            marks=3 << 5,
            reserved=(0 if no_execute else 1 << 63) | (0 if level == "pte" else (1 << shift) - (1 << 13)),
        )

    @hookimpl
    def kconfig(self, has: Has) -> str:
        """Return this package's Kconfig fragment."""
        return fragment(__package__, has)

    def mmu_access(self, level: Level, entry: int, write: bool) -> tuple[int, bool]:
        """See `pfnmap.Arch.mmu_access`. Of a protection key every process is refused all but the first.

        A refused access changes nothing but an old 1G leaf, which the recorded machine marks accessed before it looks
        at permissions (RECORDINGS.md; the emulator's walker does that at this level and above, not at 2M or 4K).
        """
        needed = PRESENT | USER | (RW if write else 0)
        if entry & needed == needed and not entry & self.denied_keys:
            return entry | ACCESSED | (DIRTY if write else 0), True
        if level == "pud" and entry & PRESENT:
            return entry | ACCESSED, False
        return entry, False

    def copy_tries_again(self, address: int, length: int, done: int, write: bool) -> bool:
        """See `pfnmap.Arch.copy_tries_again`: from 64 bytes on the copy is a `rep movsb`, on a CPU with ERMS and
        without FSRM as the recorded one (`min.buffer.off_*`). Before `x86-user-copy-by-words` every failed copy went
        on byte by byte (from memory of the source; 16 bytes are recorded)."""
        if not self.copies_by_words:
            return True
        return length < _REP_MOVSB and super().copy_tries_again(address, length, done, write)

    def cache_mode(self, level: Level, leaf: int) -> str | None:
        """See `pfnmap.Arch.cache_mode`. Source: the CPU's manual, "Selecting a Memory Type from the PAT": the PAT bit
        of a 2M or 1G leaf is bit 12, since bit 7 says that it is one.
        """
        pat = PAT if level == "pte" else PAT_LARGE
        return CacheMode.of(leaf & (PCD | PWT) | (PAT if leaf & pat else 0)).value

    def access_error(self, vm_flags: int, write: bool) -> int:
        """See `pfnmap.Arch.access_error`. Source: arch/x86/mm/fault.c, access_error and bad_area_access_error.

        With protection keys an execute-only vma gets a key of its own that denies data (mm/pkeys.c,
        __execute_only_pkey; recorded).
        """
        if self.denied_keys and (vm_flags & (VM_READ | VM_WRITE | VM_EXEC) == VM_EXEC or vm_flags & VM_PKEY_MASK):
            return SEGV_PKUERR
        if self.shadow_stack_vmas and write and vm_flags & VM_SHADOW_STACK:
            return SEGV_ACCERR
        return super().access_error(vm_flags, write)
