"""The fallbacks: what the kernel's headers say under ``#ifndef`` (include/linux/pgtable.h, pgtable-nop4d.h and
friends).

Registered as a plugin like any other, tried last. The kernel's fallbacks are pinned by the rows of helpers that are
`generic` in the golden vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from pfnmap.contract.arch import Arch
from pfnmap.contract.entry import Entry
from pfnmap.contract.kernel import MachineState
from pfnmap.contract.vma import VmArea
from pfnmap.errors import Refused
from pfnmap.hookspecs import hookimpl

__all__ = ["Generic"]


class Generic:
    """The generic owner of every entry hook, for one linked kernel."""

    def __init__(self, arch: Arch, config: Mapping[str, str]) -> None:
        self._arch = arch
        self._config = config

    @hookimpl(trylast=True)
    def pte_special(self, pte: Entry) -> Entry:
        return pte & 0

    @hookimpl(trylast=True)
    def pmd_special(self, pmd: Entry) -> Entry:
        return pmd & 0

    @hookimpl(trylast=True)
    def pud_special(self, pud: Entry) -> Entry:
        return pud & 0

    @hookimpl(trylast=True)
    def pte_mkspecial(self, pte: Entry) -> Entry:
        return pte

    @hookimpl(trylast=True)
    def pmd_mkspecial(self, pmd: Entry) -> Entry:
        return pmd

    @hookimpl(trylast=True)
    def pud_mkspecial(self, pud: Entry) -> Entry:
        return pud

    @hookimpl(trylast=True)
    def pte_pgprot(self, pte: Entry) -> Entry:
        return pte & 0

    @hookimpl(trylast=True)
    def pmd_pgprot(self, pmd: Entry) -> Entry:
        return pmd & 0

    @hookimpl(trylast=True)
    def pud_pgprot(self, pud: Entry) -> Entry:
        return pud & 0

    @hookimpl(trylast=True)
    def pud_pfn(self, pud: Entry) -> Entry:
        return pud & 0

    @hookimpl(trylast=True)
    def pud_write(self, pud: Entry) -> Entry:
        raise Refused("pud_write", f"BUG() in the headers' fallback, and {self._arch.name} has none of its own")

    @hookimpl(trylast=True)
    def pte_devmap(self, pte: Entry) -> Entry:
        return pte & 0

    @hookimpl(trylast=True)
    def pmd_devmap(self, pmd: Entry) -> Entry:
        return pmd & 0

    @hookimpl(trylast=True)
    def pud_devmap(self, pud: Entry) -> Entry:
        return pud & 0

    @hookimpl(trylast=True)
    def pgd_devmap(self, pgd: Entry) -> Entry:
        return pgd & 0

    @hookimpl(trylast=True)
    def pud_trans_huge(self, pud: Entry) -> Entry:
        return pud & 0

    @hookimpl(trylast=True)
    def pte_access_permitted(self, pte: Entry, write: int) -> Entry:
        return _permitted(self._arch.pte_present(pte), pte, write, self._arch.pte_write)

    @hookimpl(trylast=True)
    def pmd_access_permitted(self, pmd: Entry, write: int) -> Entry:
        return _permitted(self._arch.pmd_present(pmd), pmd, write, self._arch.pmd_write)

    @hookimpl(trylast=True)
    def pud_access_permitted(self, pud: Entry, write: int) -> Entry:
        return _permitted(self._arch.pud_present(pud), pud, write, self._own("pud_write"))

    @hookimpl(trylast=True)
    def p4d_present(self, p4d: Entry) -> Entry:
        return (p4d & 0) | 1

    @hookimpl(trylast=True)
    def p4d_none(self, p4d: Entry) -> Entry:
        return p4d & 0

    @hookimpl(trylast=True)
    def p4d_bad(self, p4d: Entry) -> Entry:
        return p4d & 0

    @hookimpl(trylast=True)
    def p4d_leaf(self, p4d: Entry) -> Entry:
        return p4d & 0

    @hookimpl(trylast=True)
    def p4d_populate(self, pa: Entry) -> Entry:
        return pa & 0

    @hookimpl(trylast=True)
    def pgd_present(self, pgd: Entry) -> Entry:
        return (pgd & 0) | 1

    @hookimpl(trylast=True)
    def pgd_none(self, pgd: Entry) -> Entry:
        return pgd & 0

    @hookimpl(trylast=True)
    def pgd_bad(self, pgd: Entry) -> Entry:
        return pgd & 0

    @hookimpl(trylast=True)
    def pgd_leaf(self, pgd: Entry) -> Entry:
        return pgd & 0

    @hookimpl(trylast=True)
    def pgd_populate(self, pa: Entry) -> Entry:
        return pa & 0

    @hookimpl(trylast=True)
    def pte_mkwrite(self, pte: Entry, vm_flags: int) -> Entry:
        return self._arch.pte_mkwrite_novma(pte)

    @hookimpl(trylast=True)
    def pmd_mkwrite(self, pmd: Entry, vm_flags: int) -> Entry:
        return self._arch.pmd_mkwrite_novma(pmd)

    @hookimpl(trylast=True)
    def ptep_set_access_flags(self, pte: Entry, entry: Entry) -> Entry:
        return entry

    @hookimpl(trylast=True)
    def pmdp_set_access_flags(self, pmd: Entry, entry: Entry) -> Entry:
        return entry

    @hookimpl(trylast=True)
    def pte_mksoft_dirty(self, pte: Entry) -> Entry:
        return pte

    @hookimpl(trylast=True)
    def pmd_mksoft_dirty(self, pmd: Entry) -> Entry:
        return pmd

    @hookimpl(trylast=True)
    def pte_soft_dirty(self, pte: Entry) -> Entry:
        return pte & 0

    @hookimpl(trylast=True)
    def pte_clear_soft_dirty(self, pte: Entry) -> Entry:
        return pte

    @hookimpl(trylast=True)
    def pmd_soft_dirty(self, pmd: Entry) -> Entry:
        return pmd & 0

    @hookimpl(trylast=True)
    def pgprot_modify(self, oldprot: Entry, newprot: Entry) -> Entry:
        # A pgprot is no page-table entry: it is compared as a value, here as in include/linux/pgtable.h.
        for cached in (self._noncached, self._arch.pgprot_writecombine, self._device):
            if oldprot == cached(oldprot):
                newprot = cached(newprot)
        return newprot

    @hookimpl(trylast=True)
    def vm_get_page_prot(self, vm_flags: int) -> int:
        return self._arch.protection_map[vm_flags & 15]

    @hookimpl(trylast=True)
    def pgprot_noncached(self, prot: Entry) -> Entry:
        return prot

    @hookimpl(trylast=True)
    def pgprot_decrypted(self, prot: Entry) -> Entry:
        return prot

    @hookimpl(trylast=True)
    def pgprot_device(self, prot: Entry) -> Entry:
        return self._noncached(prot)

    # A macro expands to whatever the name is: the architecture's own where it has one.

    def _noncached(self, prot: Entry) -> Entry:
        return self._own("pgprot_noncached")(prot)

    def _device(self, prot: Entry) -> Entry:
        return self._own("pgprot_device")(prot)

    def _own(self, name: str) -> Callable[[Entry], Entry]:
        owner = self if name in self._arch.undefined else self._arch
        return cast("Callable[[Entry], Entry]", getattr(owner, name, getattr(self, name)))

    @hookimpl(trylast=True)
    def track_pfn_remap(self, vma: VmArea, prot: int, pfn: int, address: int, size: int) -> int:
        return prot

    @hookimpl(trylast=True)
    def track_pfn_insert(self, vma: VmArea, prot: int, pfn: int) -> int:
        return prot

    @hookimpl(trylast=True)
    def pfnmap_pages_alike(self, machine: MachineState, pfn: int, count: int) -> int:
        return count

    @hookimpl(trylast=True)
    def track_pfn_copy(self, dst: VmArea, src: VmArea) -> int:
        return 0

    @hookimpl(trylast=True)
    def untrack_pfn(self, vma: VmArea, pfn: int, size: int) -> int:
        return 0

    @hookimpl(trylast=True)
    def untrack_pfn_clear(self, vma: VmArea) -> int:
        return 0

    @hookimpl(trylast=True)
    def pfnmap_track(self, machine: MachineState, pfn: int, size: int, prot: int) -> int:
        return prot

    @hookimpl(trylast=True)
    def pfnmap_untrack(self, machine: MachineState, pfn: int, size: int) -> int:
        return 0

    @hookimpl(trylast=True)
    def pfnmap_setup_cachemode(self, machine: MachineState, pfn: int, size: int, prot: int) -> int:
        return prot

    @hookimpl(trylast=True)
    def ioremap_prot(self, machine: MachineState, phys: int, size: int, prot: int) -> int:
        return 0

    @hookimpl(trylast=True)
    def memcpy_io(self, machine: MachineState, phys: int, size: int, write: bool) -> int:
        return 0

    @hookimpl(trylast=True)
    def iounmap(self, machine: MachineState, phys: int, size: int) -> int:
        return 0

    @hookimpl(trylast=True)
    def arch_calc_vm_prot_bits(self, vm_flags: int) -> int:
        return 0

    @hookimpl(trylast=True)
    def arch_pkeys_enabled(self) -> bool:
        return False

    @hookimpl(trylast=True)
    def arch_needs_pgtable_deposit(self) -> bool:
        return False

    @hookimpl(trylast=True)
    def has_transparent_hugepage(self) -> bool:
        return self._config.get("TRANSPARENT_HUGEPAGE", "n") == "y"

    @hookimpl(trylast=True)
    def has_transparent_pud_hugepage(self) -> bool:
        return self._config.get("HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD", "n") == "y"


def _permitted(present: Entry, entry: Entry, write: int, may_write: Callable[[Entry], Entry]) -> Entry:
    """present && (!write || X_write): as in C, X_write (which may be BUG()) is asked only where it decides."""
    asked = write and (present if isinstance(present, int) else cast("Any", present).any())
    return present & may_write(entry) if asked else present
