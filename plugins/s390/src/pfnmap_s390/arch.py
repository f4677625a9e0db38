"""S390: the architecture and its CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pfnmap import Has, Level, MachineState, Module, WordFormat, hookimpl
from pfnmap.kconfig import fragment
from pfnmap_s390.bits import PAGE_INVALID, PAGE_MASK, PAGE_PROTECT, SEGMENT_INVALID
from pfnmap_s390.pci_mmio import PciMmio
from pfnmap_s390.pgtable import Pgtable

__all__ = ["S390"]


class S390(Pgtable):
    """64-bit s390 with 4K pages, 1M segments and 2K page tables.

    `cpu` keys: `nx` (the no-execute facility), `zpci` (the PCI facilities), `mio` (the PCI MIO facility, which z15
    brought), `mio_wb_bit_mask` (with MIO: the address bit that asks for write-back, as firmware tells it; 0 for none).
    """

    name: ClassVar[str] = "s390"
    aliases: ClassVar[tuple[str, ...]] = ("s390x",)
    config_symbol: ClassVar[str] = "S390"
    cpu_defaults: ClassVar[Mapping[str, object]] = {"nx": True, "zpci": True, "mio": False, "mio_wb_bit_mask": 0}
    module: ClassVar[type[Module]] = PciMmio
    machines: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "no huge pages at all": {"given": {"TRANSPARENT_HUGEPAGE": "n", "HUGETLBFS": "n"}},
        "6.1.192": {"release": "6.1.192"},
    }
    expected_failures: ClassVar[Mapping[str, str]] = {
        "prot-round-trip:pte": "pte_pgprot is made for a kernel mapping: young, dirty if writable, never invalid",
        "pgprot-less-pfn:pte": "pte_pgprot keeps the address; who uses it adds the same one (the vectors say so, too)",
        "words-life:pte": "an old entry is invalid to the CPU: those that fork copies fault once more",
    }

    @hookimpl
    def kconfig(self, has: Has) -> str:
        """Return this package's Kconfig fragment."""
        return fragment(__package__, has)

    def mmu_access(self, level: Level, entry: int, write: bool) -> tuple[int, bool]:
        """See `pfnmap.Arch.mmu_access`: the invalid and the protection bit decide, and the entry never changes.

        Principles of Operation, dynamic address translation; the storage keys, where hardware records accesses and
        changes, are not modelled, nor used by the kernel for its own memory.
        """
        invalid = entry & (PAGE_INVALID if level == "pte" else SEGMENT_INVALID)
        return entry, not (invalid or (write and entry & PAGE_PROTECT))  # the same bit at every level

    def word_format(self, level: Level) -> WordFormat:
        """See `pfnmap.Arch.word_format`. Source: z/Architecture Principles of Operation (SA22-7832), "Dynamic-Address-
        Translation Tables", in the manual's numbering from the left: bit 53 of a PTE and bit 58 of the others is the
        invalid bit; bit 54 protects, bit 55 forbids execution; bit 53 of a segment or region-third entry says that it
        maps 1M or 2G (the format control). Bits 56 to 63 of a PTE are available to software; of a large segment or
        region-third entry 62 and 63 are, and, with bit 47 zero, 48 to 51 too. Bit 52 of a PTE must be zero,
        and bit 55 of all where the facility is not there.
        """
        load, execute, store = (0, 0), (0x100 if self._nx else 0, 0), (0x200, 0)
        no_execute = 0 if self._nx else 0x100
        if level == "pte":
            pages = (((1 << 64) - (1 << 12), 0),)
            return WordFormat(
                (0x400, 0),
                None,
                pages,
                load=load,
                execute=execute,
                store=store,
                software=0xFF,
                reserved=0x800 | no_execute,
            )
        leaf = {"pmd": 20, "pud": 31}.get(level)
        return WordFormat(
            (0x20, 0),
            (0x400, 0) if leaf else (0, 0),
            (((1 << 64) - (1 << leaf), 0),) if leaf else (),
            (((1 << 64) - (1 << (11 if level == "pmd" else 12)), 0),),
            load=load,
            execute=execute,
            store=store,
            software=0xF003,
            reserved=no_execute,
        )

    def fault_address(self, address: int) -> int:
        """See `pfnmap.Arch.fault_address`: the page, no more (arch/s390/mm/fault.c, get_fault_address)."""
        return address & PAGE_MASK

    @hookimpl
    def memcpy_io(self, machine: MachineState, phys: int, size: int, write: bool) -> int:
        pci_mmio = machine.arch_module
        assert isinstance(pci_mmio, PciMmio)
        return pci_mmio.memcpy_io(phys, size, write)
