"""Checks of entries against the word format that the plugin declares from the CPU's manual.

The format is written apart from the ops (`pfnmap.Arch.word_format`), so what both say of a bit is said twice: where it
is, what it grants, and whose it is. The checks ask it of every level that has leaves or tables, also of levels that no
pfnmap uses, where `pfnmap.testing.mm_checks` does not come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from pfnmap.contract.entry import Level
from pfnmap.contract.geometry import Fields, WordFormat
from pfnmap.testing.arch_subject import LEAF_LEVELS, ArchSubject, shown
from pfnmap.testing.check import Check, Violation, bits
from pfnmap.testing.raw_walk import gathered, holds
from pfnmap.testing.table_checks import expect
from pfnmap.vm_flags import VM_EXEC, VM_READ, VM_SHARED, VM_WRITE

__all__ = ["CHECKS"]

_ACCESS = VM_READ | VM_WRITE | VM_EXEC
_FLIPPED: Final = 40  # leaves of which each bit of the format is turned over


def format_fits(subject: ArchSubject) -> None:
    for walked in subject.geometry.walk:
        how = subject.arch.word_format(walked.name)
        assert how is not None
        told = {
            name: bits_of
            for name in ("valid", "table", "load", "execute", "store", "uncached", "combining", "size")
            if (bits_of := getattr(how, name)) is not None
        }
        told |= {name: (getattr(how, name) or 0,) * 2 for name in ("software", "marks", "reserved")}
        fields = {"address": how.address, "next_table": how.next_table or ()}
        masks = {name: mask for name, (mask, _) in told.items()} | {
            name: mask for name, pairs in fields.items() for mask, _ in pairs
        }
        for name, mask in masks.items():
            if not 0 <= mask < 1 << 64:
                raise Violation(f"{name} of a {walked.name} word is {mask:#x}, which is no 64 bits of a word")
        for name, (mask, value) in told.items():
            if value & ~mask:
                raise Violation(f"{name} of a {walked.name} word is {value:#x} in {mask:#x}: it never holds")
        _apart(walked.name, how.address, masks, ("valid", "load", "execute", "store", "uncached", "software", "marks"))
        if how.table is not None:
            _apart(walked.name, how.next_table or how.address, masks, ("valid", "table"))
        if how.reserved is not None and how.address:
            _all_told(walked.name, how.address, masks.values())


def _all_told(level: Level, address: Fields, masks: Iterable[int]) -> None:
    """Raise Violation where a bit above an address is neither reserved nor anything else."""
    untold = (1 << 64) - (1 << max(field for field, _ in address).bit_length())
    for mask in masks:
        untold &= ~mask
    if untold:
        raise Violation(
            f"{bits(untold, 0)} of a {level} word, above its address, have no meaning, and are not reserved"
        )


def _apart(level: Level, address: Fields, masks: Mapping[str, int], others: Iterable[str]) -> None:
    """Raise Violation where an address lies in bits that tell something else of the same word."""
    for field, _ in address:
        for name in others:
            if common := field & masks.get(name, 0):
                raise Violation(f"{bits(common, 0)} of a {level} word are told to be both its address and {name}")


def leaf_maps_its_pfn(subject: ArchSubject, level: Level) -> None:
    how = subject.word_format(level)
    highest = subject.highest_pfn(level)
    for prot in subject.prots():
        for pfn in (*subject.pfns(level), highest, highest & -highest):
            entry = subject.fresh(level, pfn, prot)
            _maps(subject, level, how, entry, pfn, f"{entry:#x}, made for pfn {pfn:#x}")
    for leaf in subject.leaves(level):
        _maps(subject, level, how, leaf.entry, leaf.pfn, shown(level, leaf))


def _maps(subject: ArchSubject, level: Level, how: WordFormat, entry: int, pfn: int, what: str) -> None:
    if not holds(how.valid, entry):
        return
    if entry == how.shared or (how.table is not None and holds(how.table, entry)):
        raise Violation(f"the walker takes the {level} leaf {what} for a table")
    address = gathered(how.address, entry)
    if address != pfn << subject.geometry.PAGE_SHIFT:
        raise Violation(
            f"the walker reads {address:#x} in the {level} leaf {what}: "
            f"{bits(address, pfn << subject.geometry.PAGE_SHIFT)} of the address"
        )


def table_points_to_it(subject: ArchSubject, level: Level) -> None:
    how = subject.word_format(level)
    for table in subject.tables():
        entry = getattr(subject.ops, f"{level}_populate")(table)
        what = f"{level}_populate({table:#x}) = {entry:#x}"
        if not holds(how.valid, entry) or entry == how.shared:
            raise Violation(f"{what} is not valid to the walker")
        if how.table is None or not holds(how.table, entry):
            raise Violation(f"the walker takes {what} for a leaf")
        if (found := gathered(how.next_table if how.next_table is not None else how.address, entry)) != table:
            raise Violation(f"the walker goes from {what} to {found:#x}: {bits(found, table)}")
    _table_address_is_read(subject, level, how)


def _table_address_is_read(subject: ArchSubject, level: Level, how: WordFormat) -> None:
    pgtable = getattr(subject.ops, f"{level}_pgtable")
    fields = how.next_table if how.next_table is not None else how.address
    table = subject.tables()[0]
    entry = getattr(subject.ops, f"{level}_populate")(table)
    for n in (n for n in range(64) if any(mask >> n & 1 for mask, _ in fields)):
        word = entry ^ 1 << n
        if pgtable(word) != (where := gathered(fields, word)):
            raise Violation(
                f"{level}_pgtable({word:#x}) is {pgtable(word):#x}, the walker goes to {where:#x}: it reads bit {n} too"
            )


def walkers_leaf_is_a_leaf(subject: ArchSubject, level: Level) -> None:
    how, pfn_of = subject.word_format(level), subject.op(level, "pfn")
    assert how.table is not None
    highest = (subject.highest_pfn(level) << subject.geometry.PAGE_SHIFT) & subject.linear_mask
    for address in (highest, highest & -highest):
        word = getattr(subject.ops, f"{level}_populate")(address) ^ how.table[0]
        if not holds(how.valid, word) or holds(how.table, word):
            continue
        what = f"{word:#x}, what populate wrote of {address:#x} made a leaf to the walker"
        expect(subject, level, word, {"leaf": 1, "none": 0, "present": 1}, what)
        if (pfn := pfn_of(word)) << subject.geometry.PAGE_SHIFT != gathered(how.address, word):
            raise Violation(f"{level}_pfn is {pfn:#x} of {what}")


def nothing_reserved_is_set(subject: ArchSubject, level: Level) -> None:
    reserved = subject.word_format(level).reserved
    assert reserved is not None
    words = [(leaf.entry, shown(level, leaf)) for leaf in subject.leaves(level)]
    if subject.has(f"{level}_pgprot"):
        pgprot, make = subject.op(level, "pgprot"), getattr(subject.ops, f"pfn_{level}")
        again = [(make(leaf.pfn, pgprot(leaf.entry)), shown(level, leaf)) for leaf in subject.leaves(level)]
        words += [(word, f"a leaf of the pgprot of {what}") for word, what in again]
    for word, what in words:
        if word & reserved:
            raise Violation(f"{bits(word & reserved, 0)} of {word:#x} must be 0 to the CPU: {what}")


def access_is_as_said(subject: ArchSubject, level: Level) -> None:
    how = subject.word_format(level)
    assert how.load is not None
    assert how.store is not None
    flipped = how.valid[0] | how.load[0] | how.store[0]
    words = [(leaf.entry, shown(level, leaf)) for leaf in subject.leaves(level)]
    for leaf in subject.leaves(level)[:: len(words) // _FLIPPED or 1]:
        for n in (n for n in range(64) if flipped >> n & 1):
            words.append((leaf.entry ^ 1 << n, f"{shown(level, leaf)}, with bit {n} the other way round"))
    for word, what in words:
        for write, granted in ((False, how.load), (True, how.store)):
            verb = "store" if write else "load"
            entry, allowed = subject.arch.mmu_access(level, word, write)
            if allowed and not (holds(how.valid, entry) and holds(granted, entry)):
                raise Violation(f"the CPU allows a {verb} through {what}; the format of {entry:#x} does not")
            if not allowed and holds(how.valid, word) and holds(granted, word):
                marks = ("young", "dirty") if write else ("young",)
                if all(subject.has(f"{level}_{m}") and subject.op(level, m)(word) for m in marks):
                    raise Violation(f"the CPU refuses a {verb} through {what}, which the format allows")


def other_bits_decide_nothing(subject: ArchSubject, level: Level) -> None:
    how = subject.word_format(level)
    assert how.load is not None
    assert how.store is not None
    named = how.valid[0] | how.load[0] | how.store[0] | how.marks | (how.table[0] if how.table else 0)
    leaves = subject.leaves(level)
    for leaf in leaves[:: len(leaves) // _FLIPPED or 1]:
        for write in (False, True):
            allowed = subject.arch.mmu_access(level, leaf.entry, write)[1]
            for n in (n for n in range(64) if not named >> n & 1):
                word = leaf.entry ^ 1 << n
                if word != how.shared and subject.arch.mmu_access(level, word, write)[1] != allowed:
                    raise Violation(
                        f"bit {n}, in which the format sees no permission, decides on a {'store' if write else 'load'} "
                        f"through {shown(level, leaf)}"
                    )


def modify_grants_as_asked(subject: ArchSubject, level: Level) -> None:
    execute, load = subject.permissions(level)
    modify, pfn = subject.op(level, "modify"), subject.pfns(level)[-1]
    asked: dict[int, tuple[bool, bool]] = {}
    for leaf in subject.leaves(level):
        for flags in range(leaf.vm_flags & VM_SHARED, (leaf.vm_flags & VM_SHARED) + 8):
            prot = subject.mprotected(leaf.prot, flags)
            if prot not in asked:
                fresh = subject.fresh(level, pfn, prot)
                asked[prot] = holds(load, fresh), holds(execute, fresh)
            entry = modify(leaf.entry, prot)
            for verb, permission, granted in zip(("read", "execute"), (load, execute), asked[prot], strict=True):
                if holds(permission, entry) != granted:
                    raise Violation(
                        f"{level}_modify(..., {prot:#x}) = {entry:#x}, which user space may "
                        f"{'not ' if granted else ''}{verb}, unlike a new leaf of that pgprot; for {shown(level, leaf)}"
                    )


_OWN: Final[Mapping[str, tuple[str, ...]]] = {
    "mkyoung": ("marks", "valid"),
    "mkold": ("marks", "valid"),
    "mkdirty": ("marks", "store"),
    "mkclean": ("marks", "store"),
    "mkwrite": ("marks", "store"),
    "wrprotect": ("marks", "store"),
    "mkspecial": (),
    "mkdevmap": (),
}
"""Op on a leaf -> the fields of a format whose bits it may change, besides those of software."""


def ops_change_their_own_bits(subject: ArchSubject, level: Level) -> None:
    how = subject.word_format(level)
    assert how.software is not None
    assert how.store is not None
    fields = {"marks": how.marks, "valid": how.valid[0], "store": how.store[0]}
    for leaf in subject.leaves(level):
        for name, own in _OWN.items():
            if not subject.has(f"{level}_{name}") or (name in ("mkwrite", "mkdirty") and not leaf.vm_flags & VM_WRITE):
                continue
            entry = subject.op(level, name)(leaf.entry)
            allowed = how.software
            for field in own:
                allowed |= fields[field]
            if other := (entry ^ leaf.entry) & ~allowed:
                raise Violation(
                    f"{level}_{name} changes {bits(other, 0)}, which the manual gives neither to software nor to that; "
                    f"for {shown(level, leaf)}"
                )


def leaf_says_its_size(subject: ArchSubject, level: Level) -> None:
    how = subject.word_format(level)
    assert how.size is not None
    for leaf in subject.leaves(level):
        if not holds(how.size, leaf.entry):
            mask, value = how.size
            raise Violation(
                f"{bits(leaf.entry & mask, value)} of {shown(level, leaf)} do not say that a {level} leaf is that large"
            )


def memory_types_are_as_said(subject: ArchSubject, level: Level) -> None:
    how, pfn = subject.word_format(level), subject.pfns(level)[-1]
    types = {"pgprot_noncached": ("device memory", how.uncached), "pgprot_writecombine": ("combining", how.combining)}
    for flags in (flags for flags in range(16) if flags & _ACCESS):
        for mode in ("", *types):
            entry = subject.fresh(level, pfn, subject.prot(flags, mode))
            for of, (what, held) in types.items():
                # Where nothing combines, the headers make it noncached.
                if held is None or (mode == "pgprot_writecombine" and how.combining is None):
                    continue
                if holds(held, entry) != (mode == of):
                    raise Violation(
                        f"the {level} leaf {entry:#x} of {mode or 'a cached pgprot'} is {'not ' if mode == of else ''}"
                        f"what the CPU takes for {what}"
                    )


def gup_reads_what_can_be_read(subject: ArchSubject, level: Level) -> None:
    how, permitted = subject.word_format(level), subject.op(level, "access_permitted")
    assert how.load is not None
    leaves = subject.leaves(level)
    for leaf in leaves[:: len(leaves) // _FLIPPED or 1]:
        for n in range(64):
            word = leaf.entry ^ 1 << n
            if holds(how.valid, word) and not holds(how.load, word) and permitted(word, 0):
                raise Violation(
                    f"{level}_access_permitted reads through {word:#x}, which user space may not read: "
                    f"{shown(level, leaf)} with bit {n} the other way round"
                )


_LEAF = ("leaf:X", "words")

CHECKS = (
    Check(
        "format-fits",
        "what a format says of a word is 64 bits, can hold, gives no bit both to an address and to something else, "
        "and, where it says what is reserved, leaves out none above the address",
        format_fits,
        ("words",),
    ),
    Check(
        "format-leaf",
        "the walker finds in a leaf the address that it was made for, and takes none for a table",
        leaf_maps_its_pfn,
        _LEAF,
        LEAF_LEVELS,
    ),
    Check(
        "format-table",
        "the walker goes where populate and pgtable say, at any address that a table can have",
        table_points_to_it,
        ("slots:X", "words"),
        ("pmd", "pud", "p4d", "pgd"),
    ),
    Check(
        "format-leaf-read",
        "what the walker takes for a leaf is a present leaf to the ops too, of the same pfn, also where no pfnmap is",
        walkers_leaf_is_a_leaf,
        ("slots:X", "walker-leaf:X", "X_pfn"),
        ("pmd", "pud"),
    ),
    Check(
        "reserved-bits",
        "no leaf has a bit set that the CPU wants to be 0, nor has one of a leaf's pgprot",
        nothing_reserved_is_set,
        (*_LEAF, "reserved"),
        LEAF_LEVELS,
    ),
    Check(
        "format-access",
        "a load and a store are allowed through exactly those leaves whose format says so, once they are marked",
        access_is_as_said,
        (*_LEAF, "stores"),
        LEAF_LEVELS,
    ),
    Check(
        "format-complete",
        "no bit decides on a load or a store but those that the format gives to validity, permissions and marks",
        other_bits_decide_nothing,
        (*_LEAF, "stores"),
        LEAF_LEVELS,
    ),
    Check(
        "modify-grants",
        "what mprotect makes of a leaf can be read and executed exactly where a new leaf of that pgprot can",
        modify_grants_as_asked,
        (*_LEAF, "permissions", "X_modify"),
        LEAF_LEVELS,
    ),
    Check(
        "own-bits",
        "an op changes the bits of software, and of the CPU's those that are what it is about",
        ops_change_their_own_bits,
        (*_LEAF, "software"),
        LEAF_LEVELS,
    ),
    Check(
        "leaf-size",
        "where a word says how much it maps, every leaf says the size of its level",
        leaf_says_its_size,
        (*_LEAF, "sizes"),
        LEAF_LEVELS,
    ),
    Check(
        "memory-types",
        "noncached is what the CPU takes for device memory, write-combining what it combines stores to; cached neither",
        memory_types_are_as_said,
        (*_LEAF, "uncached", "pgprot_noncached"),
        LEAF_LEVELS,
    ),
    Check(
        "gup-reads",
        "gup-fast takes no page by a valid word through which user space may not read",
        gup_reads_what_can_be_read,
        (*_LEAF, "permissions", "X_access_permitted"),
        LEAF_LEVELS,
    ),
)
