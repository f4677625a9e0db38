"""What one boot settles, and the entry arithmetic that all levels share.

A kernel's masks depend on the configuration (which software bits exist), the release (saved dirty, devmap) and the
CPU (memory encryption, NX, shadow stack, protection keys, 5 levels). `X86Boot` holds them for one linked kernel.

Sources: Linux 6.12 and 6.1, arch/x86/include/asm/{pgtable.h, pgtable_types.h, pgtable_64_types.h, page_types.h,
page_64_types.h}; for the PTI bit arch/x86/mm/pti.c `__pti_set_user_pgtbl`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pfnmap import Arch, BadInput, Entry, Geometry, Has, LinkError, WalkLevel

from .bits import (
    ACCESSED,
    ALL,
    BIT_DIRTY,
    BIT_PRESENT,
    BIT_RW,
    BIT_SAVED_DIRTY,
    BIT_USER,
    CACHE_MASK,
    DIRTY,
    KERNPG_TABLE,
    NX,
    P4D_SHIFT,
    PAGE_SHIFT,
    PAGE_TABLE,
    PAT,
    PAT_LARGE,
    PCD,
    PGDIR_SHIFT,
    PHYSICAL_MASK,
    PHYSICAL_MASK_SHIFT,
    PKEY_MASK,
    PMD_SHIFT,
    PRESENT,
    PSE,
    PTRS,
    PUD_SHIFT,
    PWT,
    RW,
    SAVED_DIRTY,
    SOFT_DIRTY,
    SPECIAL,
    UFFD_WP,
    bit,
    clear,
    clear_saveddirty_shift,
    flip_protnone_guard,
    mksaveddirty_shift,
    protnone_mask,
    zero,
)

__all__ = ["X86Boot"]

_PMD_SPECIAL = frozenset({"pmd_special", "pmd_mkspecial"})
_PUD_SPECIAL = frozenset({"pud_special", "pud_mkspecial"})
_DEVMAP = frozenset(f"{level}_{op}" for level in ("pte", "pmd", "pud") for op in ("devmap", "mkdevmap"))
_THP_PUD = frozenset({"pud_devmap", "pud_trans_huge"})
_THP = _PMD_SPECIAL | _PUD_SPECIAL | _THP_PUD | {"pmd_devmap"}
_PGD = frozenset({"pgd_present", "pgd_none", "pgd_bad", "pgd_populate"})
_PAT = frozenset({"track_pfn_remap", "track_pfn_insert", "track_pfn_copy", "untrack_pfn", "untrack_pfn_clear"})
_PFNMAP_TRACK = frozenset({"pfnmap_track", "pfnmap_untrack", "pfnmap_setup_cachemode"})
_IOREMAP = frozenset({"ioremap_prot", "iounmap"})
_TOP_LEAF = frozenset({"p4d_leaf", "pgd_leaf"})


class X86Boot(Arch):
    """The part of the architecture that depends on the boot. Names in capitals are the kernel's."""

    levels: int  # that the CPU walks: 4 or 5
    enc: int = 0  # sme_me_mask, also _PAGE_ENC and _PAGE_CC; 0 without memory encryption
    unsupported: int  # what a present pgprot loses: the complement of __supported_pte_mask
    pfn_mask: int  # PTE_PFN_MASK
    pmd_page_mask: int  # PHYSICAL_PMD_PAGE_MASK
    pud_page_mask: int  # PHYSICAL_PUD_PAGE_MASK

    thp: int  # 1 with CONFIG_TRANSPARENT_HUGEPAGE
    saved_dirty: int  # 1 where the release moves dirty to bit 58 of a read-only entry
    shstk: int  # 1 where shadow stacks are in use
    pud_leaf_present: int  # PRESENT where pud_leaf asks for it too
    soft_dirty: int  # _PAGE_SOFT_DIRTY
    dirty_bits: int  # _PAGE_DIRTY_BITS
    mkdirty_bits: int  # what mkdirty sets
    devmap: int  # _PAGE_DEVMAP
    chg_mask: int  # _PAGE_CHG_MASK
    hpage_chg_mask: int  # _HPAGE_CHG_MASK
    pmd_modify_mask: int  # what pmd_modify keeps

    kernpg_table: int  # _KERNPG_TABLE
    page_table: int  # _PAGE_TABLE
    pgd_page_table: int  # _PAGE_TABLE as it is stored in the table that CR3 points to
    top_ignored: int  # NX where the checks for a bad top-level entry let it pass

    pkeys: bool  # vm_flags carry a protection key
    denied_keys: int  # key bits of an entry of which any set one denies user access
    shadow_stack_vmas: bool  # vm_flags may have VM_SHADOW_STACK
    writecombine_cleared: int  # what pgprot_writecombine clears before it sets its own bit

    def setup_arch(self, config: Mapping[str, str], cpu: Mapping[str, Any], has: Has) -> None:
        """See `pfnmap.Arch.setup_arch`. A CPU feature that the configuration does not build in stays unused."""

        def built(*symbols: str) -> bool:
            return any(config.get(symbol) == "y" for symbol in symbols)

        if not cpu["hw_access_dirty"]:
            raise LinkError("x86_64: cpu hw_access_dirty cannot be off, every x86-64 CPU sets accessed and dirty")
        compiled_levels = int(config.get("PGTABLE_LEVELS", "4"))
        self.levels = 5 if compiled_levels == 5 and cpu["la57"] else 4
        self.geometry = _geometry(self.levels)
        self.enc = _encryption_bit(cpu["sme_mask"]) if built("AMD_MEM_ENCRYPT") else 0
        self.unsupported = 0 if cpu["nx"] else NX
        physical_mask = clear(PHYSICAL_MASK, self.enc)
        self.pfn_mask = physical_mask >> PAGE_SHIFT << PAGE_SHIFT
        self.pmd_page_mask = physical_mask >> PMD_SHIFT << PMD_SHIFT
        self.pud_page_mask = physical_mask >> PUD_SHIFT << PUD_SHIFT

        self.thp = int(built("TRANSPARENT_HUGEPAGE"))
        self.saved_dirty = int(has("x86-saved-dirty"))
        self.copies_by_words = has("x86-user-copy-by-words")
        self.shadow_stack_vmas = bool(self.saved_dirty) and built("X86_USER_SHADOW_STACK")
        self.shstk = int(self.shadow_stack_vmas and bool(cpu["shadow_stack"]))
        self.pud_leaf_present = 0 if has("huge-pfnmap") else 1
        self.soft_dirty = SOFT_DIRTY if built("MEM_SOFT_DIRTY") else 0
        uffd_wp = UFFD_WP if built("HAVE_ARCH_USERFAULTFD_WP") else 0
        self.dirty_bits = DIRTY | self.saved_dirty * SAVED_DIRTY
        self.mkdirty_bits = DIRTY | self.soft_dirty
        # Saved dirty took bit 58 from devmap, which moved to 57.
        self.devmap = 0 if has("devmap-removed") else 1 << (57 if self.saved_dirty else 58)
        software = SPECIAL | self.soft_dirty | uffd_wp | self.devmap
        common = self.pfn_mask | PCD | PWT | ACCESSED | self.dirty_bits | software | self.enc
        self.chg_mask = common | PAT
        self.hpage_chg_mask = common | PSE | PAT_LARGE
        # With saved dirty pmd_modify, and only it, began to drop dirty; repaired later (FINDINGS F24).
        drops_dirty = self.saved_dirty and not has("x86-huge-modify-saved-dirty")
        self.pmd_modify_mask = clear(self.hpage_chg_mask, DIRTY if drops_dirty else 0)

        pti = built("MITIGATION_PAGE_TABLE_ISOLATION", "PAGE_TABLE_ISOLATION")
        self.kernpg_table = KERNPG_TABLE | self.enc
        self.page_table = PAGE_TABLE | self.enc
        self.pgd_page_table = self.page_table | (NX if pti and cpu["pti"] and cpu["nx"] else 0)
        self.top_ignored = NX if pti else 0

        self.pkeys = built("X86_INTEL_MEMORY_PROTECTION_KEYS")
        self.denied_keys = PKEY_MASK if self.pkeys and cpu["pku"] else 0
        self.writecombine_cleared = CACHE_MASK if has("x86-writecombine-replaces") else 0

        absent = (
            (_THP, not self.thp),
            (_THP_PUD, not built("HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD")),
            (_PMD_SPECIAL, not built("ARCH_SUPPORTS_PMD_PFNMAP")),
            (_PUD_SPECIAL, not built("ARCH_SUPPORTS_PUD_PFNMAP")),
            (_DEVMAP, has("devmap-removed")),
            (_PGD, compiled_levels < 5),
            (_PAT, not built("X86_PAT") or has("pat-pfnmap-track")),
            (_PFNMAP_TRACK, not built("X86_PAT") or not has("pat-pfnmap-track")),
            (_IOREMAP, not built("X86_PAT")),
            # Both inferences: 6.1 lacks the one, 7.3.4 the others; the changes that did it are not named.
            ({"pud_modify"}, not has("huge-pfnmap")),
            (_TOP_LEAF, has("kconfig-7.3")),
        )
        self.undefined = frozenset(op for ops, gone in absent if gone for op in ops)

    # What all levels share

    def massage_pgprot(self, prot: Entry) -> Entry:
        """Return the pgprot, without unsupported bits if it is present."""
        return prot & (ALL ^ (prot & PRESENT) * self.unsupported)

    def pfn_entry(self, pfn: Entry, prot: Entry, mask: int) -> Entry:
        """Return the entry for a pfn: its address cut to `mask`, inverted where the pgprot is not present."""
        address = ((pfn << PAGE_SHIFT) & ALL) ^ protnone_mask(prot)
        return (address & mask) | self.massage_pgprot(prot)

    def modify(self, old: Entry, newprot: Entry, chg_mask: int, kept: int, address: int) -> Entry:
        """Return `old` & `kept` with the bits outside `chg_mask` from `newprot`; `address` is what may be inverted.

        Dirty and saved dirty change places with the write permission, but an old read-only entry with dirty set is a
        shadow stack and stays one.
        """
        entry = (old & kept) | (self.massage_pgprot(newprot) & (ALL ^ chg_mask))
        entry = flip_protnone_guard(old, entry, address)
        if not self.saved_dirty:
            return entry
        was_writable = bit(old, BIT_RW)
        return clear_saveddirty_shift(mksaveddirty_shift(entry, was_writable), 1 ^ was_writable)

    def mkdirty(self, entry: Entry) -> Entry:
        """Return the entry made dirty; saved dirty if it is read-only."""
        return mksaveddirty_shift(entry | self.mkdirty_bits, self.saved_dirty)

    def wrprotect(self, entry: Entry) -> Entry:
        """Return the entry made read-only, dirty moved to saved dirty."""
        return mksaveddirty_shift(clear(entry, RW), self.saved_dirty)

    def mkwrite(self, entry: Entry) -> Entry:
        """Return the entry made writable, saved dirty moved back to dirty."""
        return clear_saveddirty_shift(entry | RW, self.saved_dirty)

    def is_permitted(self, entry: Entry, write: int) -> Entry:
        """Return 1 where user space may read, or write, through an entry (`__pte_access_permitted`)."""
        user = bit(entry, BIT_PRESENT) & bit(entry, BIT_USER) & (bit(entry, BIT_RW) | (1 - write))
        return user & zero(entry & self.denied_keys)

    def is_dirty(self, entry: Entry) -> Entry:
        """Return 1 where an entry is dirty or saved dirty."""
        return bit(entry, BIT_DIRTY) | (bit(entry, BIT_SAVED_DIRTY) & self.saved_dirty)


def _encryption_bit(value: int | str) -> int:
    try:
        mask = int(value, 0) if isinstance(value, str) else int(value)
    except (TypeError, ValueError):
        raise BadInput("cpu sme_mask", f"{value!r} is not a number") from None
    if mask and (mask & (mask - 1) or not 1 << PAGE_SHIFT <= mask <= PHYSICAL_MASK):
        what = f"{mask:#x} is neither 0 nor one address bit ({PAGE_SHIFT} to {PHYSICAL_MASK_SHIFT - 1})"
        raise BadInput("cpu sme_mask", what)
    return mask


def _geometry(levels: int) -> Geometry:
    """The geometry of 4 or 5 levels (pgtable_64_types.h); user space ends a page early (task_size_max)."""
    top = P4D_SHIFT if levels == 4 else PGDIR_SHIFT
    upper = () if levels == 4 else (WalkLevel("p4d", P4D_SHIFT, PTRS),)
    return Geometry(
        PAGE_SHIFT=PAGE_SHIFT,
        PMD_SHIFT=PMD_SHIFT,
        PUD_SHIFT=PUD_SHIFT,
        P4D_SHIFT=P4D_SHIFT,
        PGDIR_SHIFT=top,
        PTRS_PER_PTE=PTRS,
        PTRS_PER_PMD=PTRS,
        PTRS_PER_PUD=PTRS,
        PTRS_PER_P4D=1 if levels == 4 else PTRS,
        PTRS_PER_PGD=PTRS,
        walk=(
            WalkLevel("pgd", top, PTRS),
            *upper,
            WalkLevel("pud", PUD_SHIFT, PTRS),
            WalkLevel("pmd", PMD_SHIFT, PTRS),
            WalkLevel("pte", PAGE_SHIFT, PTRS),
        ),
        task_size=(1 << (top + 8)) - (1 << PAGE_SHIFT),
    )
