"""Ops that read the files of /proc which walk all of every vma: smaps, smaps_rollup, numa_maps (fs/proc/task_mmu.c).

The procfs.* and fuzz.* records pin what a pfnmap shows; what memory with pages shows is read. A recording's reader
matches a vma by its start, and tells nothing of an address at which none starts (`min.numa_maps.not_start`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pfnmap import vm_flags
from pfnmap.boundary import calling
from pfnmap.contract.phys import Page
from pfnmap.contract.slot import Slot
from pfnmap.contract.vma import MmStruct, VmArea
from pfnmap.errors import Refused
from pfnmap.mm.huge_memory import anonymous_thp_orders, is_cow_mapping, thp_vma_allowable_order
from pfnmap.mm.pagewalk import MmWalkOps, pmd_trans_huge_lock, pte_slots, walk_page_vma
from pfnmap.mm.vm_normal_page import vm_normal_page
from pfnmap.ops.op import Op
from pfnmap.vm_flags import VM_LOCKED, VM_PFNMAP, VM_PKEY_MASK, VM_PKEY_SHIFT

if TYPE_CHECKING:
    from pfnmap.ops.state import RunState

__all__ = ["OPS"]

_SIZES = (
    *("Rss", "Pss", "Pss_Dirty", "Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty", "Referenced"),
    *("Anonymous", "LazyFree", "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb"),
    *("Private_Hugetlb", "Swap", "SwapPss", "Locked"),
)
"""The sizes that smaps tells of what struct pages stand behind: none for a pfnmap."""

_MNEMONICS = {
    getattr(vm_flags, f"VM_{name}"): mnemonic
    for name, mnemonic in (
        *(("READ", "rd"), ("WRITE", "wr"), ("EXEC", "ex"), ("SHARED", "sh")),
        *(("MAYREAD", "mr"), ("MAYWRITE", "mw"), ("MAYEXEC", "me"), ("MAYSHARE", "ms")),
        *(("PFNMAP", "pf"), ("LOCKED", "lo"), ("IO", "io"), ("SEQ_READ", "sr"), ("RAND_READ", "rr")),
        *(("DONTCOPY", "dc"), ("DONTEXPAND", "de"), ("ACCOUNT", "ac"), ("NORESERVE", "nr"), ("ARCH_1", "ar")),
        *(("WIPEONFORK", "wf"), ("DONTDUMP", "dd"), ("SOFTDIRTY", "sd"), ("MIXEDMAP", "mm"), ("HUGEPAGE", "hg")),
        *(("NOHUGEPAGE", "nh"), ("MERGEABLE", "mg"), ("SEALED", "sl")),
    )
}
"""show_smap_vma_flags; any other flag shows as "??", protection keys not at all."""


@dataclass
class _Mapped:
    """A page that a vma maps: its struct page, and what entry and page say of it."""

    page: Page
    young: bool
    dirty: bool


def _mapping(mm: MmStruct, va: int) -> tuple[VmArea | None, list[_Mapped]]:
    """Read the whole file, which walks all of every vma (PUD leaves do not survive it: FINDINGS F5); return the vma
    that starts at `va` with the pages that it maps."""
    pages: list[_Mapped] = []

    def pmd_entry(vma: VmArea, slot: Slot, start: int, end: int) -> None:
        if vma.vm_start == va and (not vma.vm_flags & VM_PFNMAP or is_cow_mapping(vma.vm_flags)):
            pages.extend(_pages(vma, slot, start, end))

    for vma in mm:
        walk_page_vma(vma, MmWalkOps(pmd_entry))
    found = mm.vma_lookup(va)
    return (found if found is not None and found.vm_start == va else None), pages


def _pages(vma: VmArea, slot: Slot, start: int, end: int) -> Iterator[_Mapped]:
    machine = vma.vm_mm.machine
    ops = machine.kernel.ops
    if pmd_trans_huge_lock(vma, slot):
        raise Refused("smaps", f"a PMD leaf outside a pfnmap at {start:#x}")
    for address, (table, i) in pte_slots(vma, slot, start, end):
        pte = table[i]
        pfn = vm_normal_page(vma, address, pte) if ops.pte_present(pte) and not ops.pte_none(pte) else None
        if pfn is not None:
            page = machine.phys.ram[pfn << machine.kernel.geometry.PAGE_SHIFT]
            yield _Mapped(page, bool(ops.pte_young(pte)), bool(ops.pte_dirty(pte)) or page.dirty)


def _smaps(run: RunState, mm: MmStruct, va: int) -> dict[str, Any]:
    """show_smap of the vma that starts at `va`, sizes in kB."""
    kernel = mm.kernel
    vma, pages = _mapping(mm, va)
    if vma is None:
        return {}
    page_kib = kernel.geometry.PAGE_SIZE >> 10
    fields: dict[str, Any] = {"Size": vma.size >> 10, "KernelPageSize": page_kib, "MMUPageSize": page_kib}
    fields.update(dict.fromkeys(_SIZES, 0))
    if kernel.has("smaps-ksm"):
        fields["KSM"] = 0
    _account(fields, pages, page_kib, locked=bool(vma.vm_flags & VM_LOCKED))
    fields["THPeligible"] = int(_thp_eligible(vma))
    if kernel.ops.arch_pkeys_enabled():
        fields["ProtectionKey"] = (vma.vm_flags & VM_PKEY_MASK) >> VM_PKEY_SHIFT
    fields["VmFlags"] = _vm_flags(vma)
    return {"fields": fields}


def _account(fields: dict[str, Any], pages: list[_Mapped], page_kib: int, *, locked: bool) -> None:
    """smaps_account, page by page: what several map counts in parts, which are rounded down in the end."""
    pss = {"Pss": 0.0, "Pss_Dirty": 0.0, "Locked": 0.0}
    for mapped in pages:
        page = mapped.page
        part = page_kib / max(page.mapcount, 1)
        names = ["Rss", f"{'Private' if page.mapcount < 2 else 'Shared'}_{'Dirty' if mapped.dirty else 'Clean'}"]
        names += ["Referenced"] * mapped.young + ["Anonymous"] * page.anon
        names += ["LazyFree"] * (page.lazyfree and not mapped.dirty)
        for name in names:
            fields[name] += page_kib
        for name, counts in (("Pss", True), ("Pss_Dirty", mapped.dirty), ("Locked", locked)):
            pss[name] += part * counts
    fields.update({name: int(kib) for name, kib in pss.items()})


def _thp_eligible(vma: VmArea) -> bool:
    """thp_vma_allowable_orders as smaps asks it: as for a fault, if a leaf fits the vma and its file offset.

    Until 6.12 no pfnmap is eligible; none has a huge_fault there (FINDINGS F6, F16). A PUD leaf fits only where a PMD
    leaf does. Of shared anonymous memory nothing is, unless shmem_enabled is set.
    """
    geometry = vma.vm_mm.kernel.geometry
    if vma.is_anonymous:
        return any(_fits(vma, geometry.PAGE_SIZE << order) for order in anonymous_thp_orders(vma))
    size = geometry.size("pmd")
    if vma.vm_ops is None or vma.vm_ops.huge_fault is None or not thp_vma_allowable_order(vma):
        return False
    congruent = (vma.vm_start - (vma.vm_pgoff << geometry.PAGE_SHIFT)) % size == 0
    return congruent and _fits(vma, size)


def _fits(vma: VmArea, size: int) -> bool:
    return vma.vm_start <= (vma.vm_end - size) & -size


def _vm_flags(vma: VmArea) -> list[str]:
    flags = vma.vm_flags & ~VM_PKEY_MASK
    return [_MNEMONICS.get(1 << bit, "??") for bit in range(64) if flags >> bit & 1]


def _smaps_rollup(run: RunState, mm: MmStruct) -> dict[str, Any]:
    """show_smaps_rollup; what it prints is not modelled, what it does to the tables is."""
    _mapping(mm, -1)
    return {}


def _numa_maps(run: RunState, mm: MmStruct, va: int) -> dict[str, Any]:
    """show_numa_map of the vma that starts at `va`: the memory policy, the file, and how many pages of which kind."""
    vma, pages = _mapping(mm, va)
    if vma is None:
        return {}
    tokens = [str(vma.vm_policy or "default")]
    if vma.vm_file is not None:
        its_path = vma.vm_file.f_op.path
        with calling(its_path.__module__.partition(".")[0], "path()") as gave:
            path = gave(its_path(vma.vm_file), str)
        tokens.append("file=" + path.replace(" ", r"\040"))
    return {"tokens": tokens + (_numa_stats(vma, pages) if pages else [])}


def _numa_stats(vma: VmArea, pages: list[_Mapped]) -> list[str]:
    """What is told of pages, but for "active": on which list of the LRU they are depends on batches of other CPUs' and
    processes' pages, too."""
    anon, dirty = sum(m.page.anon for m in pages), sum(m.dirty for m in pages)
    most = max(m.page.mapcount for m in pages)
    counts = {
        "anon": anon,
        "dirty": dirty,
        "mapped": len(pages) if len(pages) not in (anon, dirty) else 0,
        "mapmax": most if most > 1 else 0,
    }
    told = [f"{name}={count}" for name, count in counts.items() if count]
    kib = vma.vm_mm.kernel.geometry.PAGE_SIZE >> 10
    return [*told, f"N0={len(pages)}", f"kernelpagesize_kB={kib}"]


OPS = {
    "smaps": Op(_smaps, {"va": "address"}),
    "smaps_rollup": Op(_smaps_rollup, {}),
    "numa_maps": Op(_numa_maps, {"va": "address"}),
}
