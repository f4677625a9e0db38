"""Protections: of vmas, and cache modes. Source: Linux 6.12 and 6.1, arch/x86/mm/pgprot.c, arch/x86/mm/pat/memtype.c,
arch/x86/include/asm/pgtable.h.

Cache modes are those of the PAT layout that the kernel programs where the CPU has PAT: write-combining is PWT,
uncached-minus is PCD.
"""

from __future__ import annotations

from pfnmap import Entry, hookimpl
from pfnmap.vm_flags import VM_EXEC, VM_READ, VM_WRITE

from .bits import (
    BIT_PKEY,
    PAGE_COPY,
    PAGE_COPY_EXEC,
    PAGE_NONE,
    PAGE_READONLY,
    PAGE_READONLY_EXEC,
    PAGE_SHARED,
    PAGE_SHARED_EXEC,
    PCD,
    PWT,
    VM_PKEY_MASK,
    VM_PKEY_SHIFT,
    clear,
)
from .boot import X86Boot

__all__ = ["PgprotOps"]

_PRIVATE = (
    *(PAGE_NONE, PAGE_READONLY, PAGE_COPY, PAGE_COPY),
    *(PAGE_READONLY_EXEC, PAGE_READONLY_EXEC, PAGE_COPY_EXEC, PAGE_COPY_EXEC),
)
_SHARED = (
    *(PAGE_NONE, PAGE_READONLY, PAGE_SHARED, PAGE_SHARED),
    *(PAGE_READONLY_EXEC, PAGE_READONLY_EXEC, PAGE_SHARED_EXEC, PAGE_SHARED_EXEC),
)


class PgprotOps(X86Boot):
    """The ops on protections."""

    @property
    def protection_map(self) -> tuple[int, ...]:
        return tuple(prot | self.enc for prot in _PRIVATE + _SHARED)

    @hookimpl
    def vm_get_page_prot(self, vm_flags: int) -> int:
        prot = self.protection_map[vm_flags & 15]
        if self.pkeys:
            prot |= (vm_flags & VM_PKEY_MASK) >> VM_PKEY_SHIFT << BIT_PKEY
        return int(self.massage_pgprot(prot))

    @hookimpl
    def arch_calc_vm_prot_bits(self, vm_flags: int) -> int:
        # An execute-only mapping gets the process's execute-only key, the first that is free (mm/pkeys.c).
        only = vm_flags & (VM_READ | VM_WRITE | VM_EXEC) == VM_EXEC
        return 1 << VM_PKEY_SHIFT if self.denied_keys and only else 0

    @hookimpl
    def arch_pkeys_enabled(self) -> bool:
        return bool(self.denied_keys)

    @hookimpl
    def pgprot_noncached(self, prot: Entry) -> Entry:
        return prot | PCD

    @hookimpl
    def pgprot_decrypted(self, prot: Entry) -> Entry:
        return clear(prot, self.enc)

    def pgprot_writecombine(self, prot: Entry) -> Entry:
        return clear(prot, self.writecombine_cleared) | PWT

    @hookimpl
    def pgprot_modify(self, oldprot: Entry, newprot: Entry) -> Entry:
        return (oldprot & self.chg_mask) | clear(newprot, self.chg_mask)
