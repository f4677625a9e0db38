"""PAT and pfnmaps: the caching of what is mapped, and the memory types that mappings reserve.

Source: arch/x86/mm/pat/memtype.c of 6.1.192 and 6.12.117; for `pat-pfnmap-track` its patches, read and not run. The
walks of 6.1 are recorded (`follow_pte`: `fork`, `munmap`, `mprotect`, `pci_memory`, `mremap`), and the complaint about
a reservation that nobody made.

Until `pat-pfnmap-track` a vma that one remap_pfn_range filled holds a reservation (VM_PAT); to undo that, or to repeat
it for a fork, PAT finds the physical address by looking the vma's first page up, which fails where that was copied on
write. From then on the vma has a context with the PFN in it (pfnmap.mm.pfnmap_track). Other mappings only take the
caching that is reserved for their PFN, uncached-minus where nothing is.
"""

from __future__ import annotations

from collections.abc import Mapping
from errno import EBUSY, EINVAL, errorcode
from typing import Any, ClassVar

from pfnmap import (
    Action,
    Machine,
    MachineState,
    Message,
    Misbehaviour,
    MmFunctions,
    Module,
    ScenarioRun,
    Unknown,
    VmArea,
    hookimpl,
)
from pfnmap.vm_flags import VM_ARCH_1, VM_MAYWRITE, VM_SHARED

from .boot import X86Boot
from .memtype import CacheMode, Memtypes, is_new_memtype_allowed, with_cachemode

__all__ = ["Pat", "PatOps"]

VM_PAT = VM_ARCH_1

_MODES: Mapping[str, CacheMode] = {mode.value: mode for mode in CacheMode}


class Pat(Module):
    """PAT in a booted machine: what is reserved, and the scenario actions of who else reserves memory types."""

    name: ClassVar[str] = "x86_64"
    provides: ClassVar[tuple[str, ...]] = (
        "follow_phys",
        "track_pfn_remap",
        "track_pfn_insert",
        "track_pfn_copy",
        "untrack_pfn",
        "pfnmap_track",
        "pfnmap_untrack",
        "pfnmap_setup_cachemode",
        "ioremap_prot",
        "iounmap",
    )
    consumes: ClassVar[tuple[str, ...]] = ("follow_pfnmap", "follow_pte", "mmap_lock", "pfn_valid", "vm_normal_page")

    def boot(self, machine: Machine) -> None:
        """Begin with nothing reserved."""
        super().boot(machine)
        self.geometry = machine.kernel.geometry
        mtrr_write_back = bool(machine.kernel.cpu["mtrr_write_back"])
        self.memtypes = Memtypes(self._is_ram, self._log, tell=self._tell, mtrr_write_back=mtrr_write_back)

    def _log(self, text: str) -> None:
        self.machine.trace.emit(Message(text))

    def _tell(self, finding: str, what: str) -> None:
        self.machine.trace.emit(Misbehaviour(finding, what))

    def _is_ram(self, start: int, end: int) -> bool:
        """pat_pagerange_is_ram, all or some of it."""
        phys = self.machine.phys
        page = self.geometry.PAGE_SIZE
        if phys.holds_none_of(start, end - start):
            return False
        if end - start <= page:
            return self.machine.mm.pfn_valid(self.machine, start // page)
        return any(start <= address < end for pages in (phys.ram, phys.tables) for address in pages)

    # until pat-pfnmap-track

    def track_pfn_remap(self, vma: VmArea, prot: int, pfn: int, address: int, size: int) -> int:
        if (address, address + size) != (vma.vm_start, vma.vm_end):
            return self._setup_cachemode(pfn, size, prot)
        prot = self._reserve_pfn_range(pfn, size, prot, strict=False)
        if prot >= 0:
            vma.vm_flags |= VM_PAT
        return prot

    def track_pfn_insert(self, vma: VmArea, prot: int, pfn: int) -> int:
        page = self.geometry.PAGE_SIZE
        return with_cachemode(prot, self.memtypes.lookup(pfn * page, page))

    def pfnmap_pages_alike(self, pfn: int, count: int) -> int:
        page = self.geometry.PAGE_SIZE
        if not self.machine.phys.holds_none_of(pfn * page, count * page):
            return 1
        return max(1, self.memtypes.alike_until(pfn * page, (pfn + count) * page) // page - pfn)

    def track_pfn_copy(self, dst: VmArea, src: VmArea) -> int:
        if src.vm_flags & VM_PAT:
            found = _follow_phys(self.machine.mm, src)
            if found is None:
                # The protection is in the page tables only: without them there is no telling it, COW mapping or not.
                if not _is_cow_mapping(src):
                    src.vm_mm.machine.warn_once("arch/x86/mm/pat/memtype.c track_pfn_copy")
                return -EINVAL
            pfn, prot = found
            got = self._reserve_pfn_range(pfn, src.size, prot, strict=True)
            if got < 0:
                return got
            dst.vm_flags |= VM_PAT
        return 0

    def untrack_pfn(self, vma: VmArea, pfn: int, size: int) -> int:
        if not vma.vm_flags & VM_PAT:
            return 0
        if not pfn and not size:
            found = _follow_phys(self.machine.mm, vma)
            if found is None and not _is_cow_mapping(vma):
                vma.vm_mm.machine.warn_once("arch/x86/mm/pat/memtype.c untrack_pfn")
                return 0
            # remap_pfn_range put the PFN of a COW mapping into vm_pgoff.
            pfn, size = found[0] if found else vma.vm_pgoff, vma.size
        self._free_pfn_range(pfn, size)
        vma.vm_flags &= ~VM_PAT
        return 0

    def untrack_pfn_clear(self, vma: VmArea) -> int:
        vma.vm_flags &= ~VM_PAT
        return 0

    # from pat-pfnmap-track on

    def pfnmap_track(self, pfn: int, size: int, prot: int) -> int:
        return self._reserve_pfn_range(pfn, size, prot, strict=False)

    def pfnmap_untrack(self, pfn: int, size: int) -> int:
        self._free_pfn_range(pfn, size)
        return 0

    def pfnmap_setup_cachemode(self, pfn: int, size: int, prot: int) -> int:
        return self._setup_cachemode(pfn, size, prot)

    # the kernel's own mappings

    def ioremap_prot(self, phys: int, size: int, prot: int) -> int:
        """__ioremap_caller; return 0, or -EBUSY where the kernel returns no address.

        The mode that is there already is taken if it will do, and is then reserved for the whole range: write-combining
        of one page makes all of a BAR that (cachemode.wc_first_page with iomem=relaxed). The messages are read.
        """
        wanted = CacheMode.of(prot)
        error, got = self.memtypes.reserve(phys, phys + size, wanted)
        if error:
            self._log(f"ioremap memtype_reserve failed {error}")
            return error
        if not is_new_memtype_allowed(phys, phys + size, wanted, got):
            self.memtypes.free(phys, phys + size)
            span = f"{phys:#x}-{phys + size:#x}"
            self._log(f"ioremap error for {span}, requested {wanted.number:#x}, got {got.number:#x}")
            return -EBUSY
        return 0

    def iounmap(self, phys: int, size: int) -> int:
        self.memtypes.free(phys, phys + size)
        return 0

    # reservations

    def _setup_cachemode(self, pfn: int, size: int, prot: int) -> int:
        """Return a protection with the caching that is reserved for a range, or -EINVAL where that is not one."""
        page = self.geometry.PAGE_SIZE
        mode = self.memtypes.lookup_all(pfn * page, pfn * page + size, page)
        return -EINVAL if mode is None else with_cachemode(prot, mode)

    def _reserve_pfn_range(self, pfn: int, size: int, prot: int, strict: bool) -> int:
        """reserve_pfn_range: return the protection to map a range with, or -errno.

        Where another mode is reserved already, that is what the mapping gets, unless it must not be (write-back instead
        of anything uncached, say; with `strict` any other): -EINVAL.
        """
        start = pfn * self.geometry.PAGE_SIZE
        end = start + size
        wanted = CacheMode.of(prot)
        if self._is_ram(start, end):
            return with_cachemode(prot, CacheMode.WB)
        error, got = self.memtypes.reserve(start, end, wanted)
        if error:
            return error
        if got is not wanted and (strict or not is_new_memtype_allowed(start, end, wanted, got)):
            self.memtypes.free(start, end)
            self._log(
                f"x86/PAT: init:1 map pfn expected mapping type {wanted.value} for"
                f" [mem {start:#010x}-{end - 1:#010x}], got {got.value}"
            )
            return -EINVAL
        return with_cachemode(prot, got)

    def _free_pfn_range(self, pfn: int, size: int) -> None:
        start = pfn * self.geometry.PAGE_SIZE
        self.memtypes.free(start, start + size)

    # what scenarios may do

    def actions(self) -> Mapping[str, Action]:
        """Memory types that others reserve: a driver's ioremap, a console's frame buffer."""
        place = {"device": "str", "bar": "int", "offset": "size", "length": "size"}
        reserve = Action(self._memtype_reserve_io, {**place, "mode": "str"}, optional=frozenset({"offset"}))
        return {
            "memtype_reserve_io": reserve,
            "memtype_free_io": Action(self._memtype_free_io, place, optional=frozenset({"offset"})),
            "pat_memtype_list": Action(self._pat_memtype_list, {}),
        }

    def _memtype_reserve_io(
        self, run: ScenarioRun, device: str, bar: int, length: int, mode: str, offset: int = 0
    ) -> dict[str, Any]:
        """memtype_reserve_io of a part of a BAR, as an ioremap of it does."""
        if mode not in _MODES:
            raise Unknown("cache mode", mode, _MODES)
        start, end = self._part(run, device, bar, offset, length)
        error, got = self.memtypes.reserve(start, end, _MODES[mode])
        if not error and not is_new_memtype_allowed(start, end, _MODES[mode], got):
            self.memtypes.free(start, end)
            error = -EBUSY
        return self._listed(error)

    def _memtype_free_io(self, run: ScenarioRun, device: str, bar: int, length: int, offset: int = 0) -> dict[str, Any]:
        """memtype_free_io, as an iounmap does; a range that nobody reserved is complained about."""
        self.memtypes.free(*self._part(run, device, bar, offset, length))
        return self._listed(0)

    def _pat_memtype_list(self, run: ScenarioRun) -> dict[str, Any]:
        """/sys/kernel/debug/x86/pat_memtype_list."""
        return self._listed(0)

    def _part(self, run: ScenarioRun, device: str, bar: int, offset: int, length: int) -> tuple[int, int]:
        start = run.bar(device, bar).phys + offset
        page = self.geometry.PAGE_SIZE
        return start & -page, -(-(start + length) // page) * page

    def _listed(self, error: int) -> dict[str, Any]:
        """The result of an errno, and /sys/kernel/debug/x86/pat_memtype_list."""
        return {"result": errorcode[-error] if error else "ok", "memtypes": [str(e) for e in self.memtypes.entries]}


class PatOps(X86Boot):
    """The hooks that follow a pfnmap's life: each asks the machine's PAT."""

    @hookimpl
    def track_pfn_remap(self, vma: VmArea, prot: int, pfn: int, address: int, size: int) -> int:
        return _pat(vma.vm_mm.machine).track_pfn_remap(vma, prot, pfn, address, size)

    @hookimpl
    def track_pfn_insert(self, vma: VmArea, prot: int, pfn: int) -> int:
        return _pat(vma.vm_mm.machine).track_pfn_insert(vma, prot, pfn)

    @hookimpl
    def pfnmap_pages_alike(self, machine: MachineState, pfn: int, count: int) -> int:
        return _pat(machine).pfnmap_pages_alike(pfn, count)

    @hookimpl
    def track_pfn_copy(self, dst: VmArea, src: VmArea) -> int:
        return _pat(dst.vm_mm.machine).track_pfn_copy(dst, src)

    @hookimpl
    def untrack_pfn(self, vma: VmArea, pfn: int, size: int) -> int:
        return _pat(vma.vm_mm.machine).untrack_pfn(vma, pfn, size)

    @hookimpl
    def untrack_pfn_clear(self, vma: VmArea) -> int:
        return _pat(vma.vm_mm.machine).untrack_pfn_clear(vma)

    @hookimpl
    def pfnmap_track(self, machine: MachineState, pfn: int, size: int, prot: int) -> int:
        return _pat(machine).pfnmap_track(pfn, size, prot)

    @hookimpl
    def pfnmap_untrack(self, machine: MachineState, pfn: int, size: int) -> int:
        return _pat(machine).pfnmap_untrack(pfn, size)

    @hookimpl
    def pfnmap_setup_cachemode(self, machine: MachineState, pfn: int, size: int, prot: int) -> int:
        return _pat(machine).pfnmap_setup_cachemode(pfn, size, prot)

    @hookimpl
    def ioremap_prot(self, machine: MachineState, phys: int, size: int, prot: int) -> int:
        return _pat(machine).ioremap_prot(phys, size, prot)

    @hookimpl
    def iounmap(self, machine: MachineState, phys: int, size: int) -> int:
        return _pat(machine).iounmap(phys, size)


def _pat(machine: MachineState) -> Pat:
    pat = machine.arch_module
    assert isinstance(pat, Pat)
    return pat


def _follow_phys(mm: MmFunctions, vma: VmArea) -> tuple[int, int] | None:
    """Look up what a vma's first page maps: its PFN and protection, or None where that is nothing, or a page of RAM
    that was copied on write.

    The callers hold mmap_lock or, for unmap_mapping_range, i_mmap_rwsem; the model's do not say so, hence the lock
    here.
    """
    kernel = vma.vm_mm.kernel
    with mm.mmap_lock(vma.vm_mm):
        if not kernel.has("huge-pfnmap"):
            pte = mm.follow_pte(vma, vma.vm_start)
            if pte is None or mm.vm_normal_page(vma, vma.vm_start, pte) is not None:
                return None
            return kernel.ops.pte_pfn(pte), kernel.ops.pte_pgprot(pte)
        with mm.follow_pfnmap(vma, vma.vm_start) as args:
            return (args.pfn, args.pgprot) if args is not None and args.special else None


def _is_cow_mapping(vma: VmArea) -> bool:
    return vma.vm_flags & (VM_SHARED | VM_MAYWRITE) == VM_MAYWRITE
