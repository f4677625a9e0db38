"""The contract with plugins: every hook, documented.

Two families. `EntryHooks`: ops on page-table entries for which the kernel's headers have a fallback under ``#ifndef``
(pfnmap.generic has it). They are called through pluggy once, when a kernel is linked: the owner's method is bound and
the hot path calls it directly. So an entry hook has one owner, no wrapper, and never answers None.
`pfnmap.contract.entry` says what an entry is. `LinkHooks`: asked while a kernel is linked, with pluggy's ordinary
collecting semantics.
"""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

import inspect
from typing import Final

import pluggy

from pfnmap.contract.entry import Entry, Has
from pfnmap.contract.kernel import MachineState
from pfnmap.contract.vma import VmArea

__all__ = ["ENTRY_HOOKS", "PROJECT", "EntryHooks", "LinkHooks", "hookimpl", "hookspec"]

PROJECT: Final = "pfnmap"
hookspec: Final = pluggy.HookspecMarker(PROJECT)
hookimpl: Final = pluggy.HookimplMarker(PROJECT)


class LinkHooks:
    """Hooks that are collected from everybody while a kernel is linked."""

    @hookspec
    def kconfig(self, has: Has) -> str | None:
        """Return a fragment of Kconfig language with the symbols this plugin declares, for the release `has` tells of.

        All fragments are parsed together, the core's first. No ``source``, no macro calls.
        """


class EntryHooks:
    """Entry hooks, each with what the generic fallback answers."""

    # The special bit (patches 2, 3 and 15 to 18 of the series)

    @hookspec(firstresult=True)
    def pte_special(self, pte: Entry) -> Entry:
        """Tell (0 or 1) whether the PTE is special: no struct page stands behind it. Fallback: 0."""

    @hookspec(firstresult=True)
    def pmd_special(self, pmd: Entry) -> Entry:
        """Tell (0 or 1) whether the PMD leaf is special. Fallback: 0."""

    @hookspec(firstresult=True)
    def pud_special(self, pud: Entry) -> Entry:
        """Tell (0 or 1) whether the PUD leaf is special. Fallback: 0."""

    @hookspec(firstresult=True)
    def pte_mkspecial(self, pte: Entry) -> Entry:
        """Return the PTE made special. Fallback: unchanged."""

    @hookspec(firstresult=True)
    def pmd_mkspecial(self, pmd: Entry) -> Entry:
        """Return the PMD leaf made special. Fallback: unchanged."""

    @hookspec(firstresult=True)
    def pud_mkspecial(self, pud: Entry) -> Entry:
        """Return the PUD leaf made special. Fallback: unchanged."""

    # The protection of an entry (patch 9 of the series)

    @hookspec(firstresult=True)
    def pte_pgprot(self, pte: Entry) -> Entry:
        """Return the pgprot of a PTE: the entry less its pfn. Fallback: 0."""

    @hookspec(firstresult=True)
    def pmd_pgprot(self, pmd: Entry) -> Entry:
        """Return the pgprot of a PMD leaf. Fallback: 0."""

    @hookspec(firstresult=True)
    def pud_pgprot(self, pud: Entry) -> Entry:
        """Return the pgprot of a PUD leaf. Fallback: 0."""

    # PUD leaves, which an architecture need not have

    @hookspec(firstresult=True)
    def pud_pfn(self, pud: Entry) -> Entry:
        """Return the page frame number of a PUD leaf. Fallback: 0."""

    @hookspec(firstresult=True)
    def pud_write(self, pud: Entry) -> Entry:
        """Tell (0 or 1) whether a PUD leaf is writable. Fallback: BUG(), a refusal."""

    # devmap, until `devmap-removed`

    @hookspec(firstresult=True)
    def pte_devmap(self, pte: Entry) -> Entry:
        """Tell (0 or 1) whether the PTE has the devmap bit. Fallback: 0."""

    @hookspec(firstresult=True)
    def pmd_devmap(self, pmd: Entry) -> Entry:
        """Tell (0 or 1) whether the PMD leaf has the devmap bit. Fallback: 0."""

    @hookspec(firstresult=True)
    def pud_devmap(self, pud: Entry) -> Entry:
        """Tell (0 or 1) whether the PUD leaf has the devmap bit. Fallback: 0."""

    @hookspec(firstresult=True)
    def pgd_devmap(self, pgd: Entry) -> Entry:
        """Tell (0 or 1) whether the PGD entry has the devmap bit: on no architecture. Fallback: 0."""

    # predicates

    @hookspec(firstresult=True)
    def pud_trans_huge(self, pud: Entry) -> Entry:
        """Tell (0 or 1) whether the PUD entry is a transparent huge one. Fallback: 0."""

    @hookspec(firstresult=True)
    def pte_access_permitted(self, pte: Entry, write: int) -> Entry:
        """Tell (0 or 1) whether gup-fast may use the PTE. Fallback: present, and writable where `write`."""

    @hookspec(firstresult=True)
    def pmd_access_permitted(self, pmd: Entry, write: int) -> Entry:
        """Tell (0 or 1) whether gup-fast may use the PMD leaf. Fallback: present, and writable where `write`."""

    @hookspec(firstresult=True)
    def pud_access_permitted(self, pud: Entry, write: int) -> Entry:
        """Tell (0 or 1) whether gup-fast may use the PUD leaf. Fallback: present, and writable where `write`.

        `pud_write` is asked only where the answer depends on it: not for a read, nor of entries that are not present.
        """

    # upper levels, which the headers fold

    @hookspec(firstresult=True)
    def p4d_present(self, p4d: Entry) -> Entry:
        """Tell whether the P4D entry is present. Fallback (folded): 1."""

    @hookspec(firstresult=True)
    def p4d_none(self, p4d: Entry) -> Entry:
        """Tell whether the P4D entry is empty. Fallback (folded): 0."""

    @hookspec(firstresult=True)
    def p4d_bad(self, p4d: Entry) -> Entry:
        """Tell whether the P4D entry is not a valid table entry. Fallback (folded): 0."""

    @hookspec(firstresult=True)
    def p4d_leaf(self, p4d: Entry) -> Entry:
        """Tell whether the P4D entry is a leaf. Fallback: 0."""

    @hookspec(firstresult=True)
    def p4d_populate(self, pa: Entry) -> Entry:
        """Return the P4D entry that points to the PUD table at `pa` (bytes). Fallback (folded): 0, not written."""

    @hookspec(firstresult=True)
    def pgd_present(self, pgd: Entry) -> Entry:
        """Tell whether the PGD entry is present. Fallback (folded): 1."""

    @hookspec(firstresult=True)
    def pgd_none(self, pgd: Entry) -> Entry:
        """Tell whether the PGD entry is empty. Fallback (folded): 0."""

    @hookspec(firstresult=True)
    def pgd_bad(self, pgd: Entry) -> Entry:
        """Tell whether the PGD entry is not a valid table entry. Fallback (folded): 0."""

    @hookspec(firstresult=True)
    def pgd_leaf(self, pgd: Entry) -> Entry:
        """Tell whether the PGD entry is a leaf. Fallback: 0."""

    @hookspec(firstresult=True)
    def pgd_populate(self, pa: Entry) -> Entry:
        """Return the PGD entry that points to the P4D table at `pa` (bytes). Fallback (folded): 0, not written."""

    # write permission and protection

    @hookspec(firstresult=True)
    def pte_mkwrite(self, pte: Entry, vm_flags: int) -> Entry:
        """Return the PTE made writable for a vma of these VM_ flags. Fallback: pte_mkwrite_novma."""

    @hookspec(firstresult=True)
    def pmd_mkwrite(self, pmd: Entry, vm_flags: int) -> Entry:
        """Return the PMD leaf made writable for a vma of these VM_ flags. Fallback: pmd_mkwrite_novma."""

    @hookspec(firstresult=True)
    def ptep_set_access_flags(self, pte: Entry, entry: Entry) -> Entry:
        """Return what the slot holds after ptep_set_access_flags(entry) over `pte`. Fallback: `entry`."""

    @hookspec(firstresult=True)
    def pmdp_set_access_flags(self, pmd: Entry, entry: Entry) -> Entry:
        """Return what the slot holds after pmdp_set_access_flags(entry) over `pmd`. Fallback: `entry`."""

    @hookspec(firstresult=True)
    def pte_mksoft_dirty(self, pte: Entry) -> Entry:
        """Return the PTE made soft-dirty. Fallback: unchanged."""

    @hookspec(firstresult=True)
    def pmd_mksoft_dirty(self, pmd: Entry) -> Entry:
        """Return the PMD leaf made soft-dirty. Fallback: unchanged."""

    @hookspec(firstresult=True)
    def pte_soft_dirty(self, pte: Entry) -> Entry:
        """Tell (0 or 1) whether the PTE is soft-dirty. Fallback: 0."""

    @hookspec(firstresult=True)
    def pte_clear_soft_dirty(self, pte: Entry) -> Entry:
        """Return the PTE made not soft-dirty. Fallback: unchanged."""

    @hookspec(firstresult=True)
    def pmd_soft_dirty(self, pmd: Entry) -> Entry:
        """Tell (0 or 1) whether the PMD leaf is soft-dirty. Fallback: 0."""

    @hookspec(firstresult=True)
    def pgprot_modify(self, oldprot: Entry, newprot: Entry) -> Entry:
        """Return `newprot` with the caching of `oldprot`. Fallback: uncached, write-combining and device are kept."""

    @hookspec(firstresult=True)
    def vm_get_page_prot(self, vm_flags: int) -> int:
        """Return the pgprot of a vma of these VM_ flags. Fallback: protection_map of the low four bits."""

    @hookspec(firstresult=True)
    def pgprot_noncached(self, prot: Entry) -> Entry:
        """Return the pgprot made uncached. Fallback: unchanged."""

    @hookspec(firstresult=True)
    def pgprot_decrypted(self, prot: Entry) -> Entry:
        """Return the pgprot for memory that is not encrypted, as a device's is not. Fallback: unchanged."""

    @hookspec(firstresult=True)
    def pgprot_device(self, prot: Entry) -> Entry:
        """Return the pgprot for device memory. Fallback: pgprot_noncached."""

    # tracking of pfnmaps (x86 PAT)

    @hookspec(firstresult=True)
    def track_pfn_remap(self, vma: VmArea, prot: int, pfn: int, address: int, size: int) -> int:
        """remap_pfn_range is about to map `size` bytes at `address` to `pfn`; return the pgprot for them, or -errno.
        Until `pat-pfnmap-track`. Fallback: `prot`."""

    @hookspec(firstresult=True)
    def track_pfn_insert(self, vma: VmArea, prot: int, pfn: int) -> int:
        """A page or a huge leaf is about to be inserted; return the pgprot for it. Until `pat-pfnmap-track`.
        Fallback: `prot`."""

    @hookspec(firstresult=True)
    def pfnmap_pages_alike(self, machine: MachineState, pfn: int, count: int) -> int:
        """Return for how many of `count` pages (at least one) from `pfn` on `track_pfn_insert` and
        `pfnmap_setup_cachemode` of one page answer the same; no function of the kernel's. Fallback: `count`."""

    @hookspec(firstresult=True)
    def track_pfn_copy(self, dst: VmArea, src: VmArea) -> int:
        """fork is about to copy the entries of a pfnmap; return 0 or a negative errno. Fallback: 0."""

    @hookspec(firstresult=True)
    def untrack_pfn(self, vma: VmArea, pfn: int, size: int) -> int:
        """The entries of a pfnmap are about to be dropped: of the whole vma (`pfn` and `size` 0), or `size` bytes from
        `pfn` on; return 0. Fallback: 0."""

    @hookspec(firstresult=True)
    def untrack_pfn_clear(self, vma: VmArea) -> int:
        """mremap has moved a pfnmap away from this vma; return 0. Fallback: 0."""

    @hookspec(firstresult=True)
    def pfnmap_track(self, machine: MachineState, pfn: int, size: int, prot: int) -> int:
        """remap_pfn_range is about to fill a vma with `size` bytes from `pfn` on; return the pgprot for them, or
        -errno. From `pat-pfnmap-track` on. Fallback: `prot`."""

    @hookspec(firstresult=True)
    def pfnmap_untrack(self, machine: MachineState, pfn: int, size: int) -> int:
        """What `pfnmap_track` began ends; return 0. Fallback: 0."""

    @hookspec(firstresult=True)
    def pfnmap_setup_cachemode(self, machine: MachineState, pfn: int, size: int, prot: int) -> int:
        """`size` bytes from `pfn` on are about to be mapped; return the pgprot for them, or -errno. From
        `pat-pfnmap-track` on. Fallback: `prot`."""

    @hookspec(firstresult=True)
    def ioremap_prot(self, machine: MachineState, phys: int, size: int, prot: int) -> int:
        """The kernel is about to map `size` bytes (whole pages) of device memory at `phys` for itself, with the caching
        of a pgprot; return 0 or a negative errno. Fallback: 0."""

    @hookspec(firstresult=True)
    def memcpy_io(self, machine: MachineState, phys: int, size: int, write: bool) -> int:
        """The kernel copies `size` bytes of device memory at `phys` that it has mapped, or to it; return 0. For
        architectures that need instructions of their own for that. Fallback: 0."""

    @hookspec(firstresult=True)
    def iounmap(self, machine: MachineState, phys: int, size: int) -> int:
        """What `ioremap_prot` mapped goes; return 0. Fallback: 0."""

    @hookspec(firstresult=True)
    def arch_calc_vm_prot_bits(self, vm_flags: int) -> int:
        """Return the VM_ flags that a mapping with these VM_READ, VM_WRITE, VM_EXEC gets besides (x86: the key of an
        execute-only one). Fallback: 0."""

    @hookspec(firstresult=True)
    def arch_pkeys_enabled(self) -> bool:
        """Tell whether this machine has protection keys for user mappings. Fallback: False."""

    # transparent huge pages

    @hookspec(firstresult=True)
    def arch_needs_pgtable_deposit(self) -> bool:
        """Tell whether a PTE table has to be deposited under each PMD leaf (powerpc hash). Fallback: False."""

    @hookspec(firstresult=True)
    def has_transparent_hugepage(self) -> bool:
        """Tell whether this machine has PMD leaves at all. Fallback: whether CONFIG_TRANSPARENT_HUGEPAGE is set."""

    @hookspec(firstresult=True)
    def has_transparent_pud_hugepage(self) -> bool:
        """Tell whether this machine has PUD leaves at all. Fallback: CONFIG_HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD."""


ENTRY_HOOKS: Final[tuple[str, ...]] = tuple(
    name for name, _ in inspect.getmembers(EntryHooks, inspect.isfunction) if not name.startswith("_")
)
"""The names of the entry hooks, sorted."""
