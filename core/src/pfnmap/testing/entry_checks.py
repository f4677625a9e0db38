"""Checks of the ops on entries: the laws that the mm core relies on, at each level.

The laws are those that a huge pfnmap needs (the series' cover letter and mm/memory.c, mm/huge_memory.c); x86_64's and
arm64's golden vectors keep all of them, other architectures' but for what FINDINGS names.
"""

from __future__ import annotations

from collections.abc import Iterable

from pfnmap.contract.entry import LEVELS, Level
from pfnmap.errors import Refused
from pfnmap.testing.arch_subject import LEAF_LEVELS, ArchSubject, Leaf, shown
from pfnmap.testing.check import Check, Violation, bits
from pfnmap.testing.table_checks import expect
from pfnmap.vm_flags import VM_EXEC, VM_READ, VM_SHARED, VM_WRITE

__all__ = ["CHECKS"]

_ACCESS = VM_READ | VM_WRITE | VM_EXEC
_SOME = 17  # every so manyth leaf has all protections, cache modes and lengths of history
_PREDICATES = ("present", "none", "leaf", "bad", "trans_huge", "write", "dirty", "young", "special", "devmap")
_ZERO_OR_ONE = frozenset({*_PREDICATES, "soft_dirty", "access_permitted"})


def _same(level: Level, what: str, before: int, after: int, leaf: Leaf, how: str) -> None:
    if before != after:
        raise Violation(f"{how} changed {level}_{what} from {before:#x} to {after:#x}, for {shown(level, leaf)}")


# pfn and pgprot


def pfn_round_trip(subject: ArchSubject, level: Level) -> None:
    _round_trip(subject, level, subject.pfns(level))


def highest_address(subject: ArchSubject, level: Level) -> None:
    highest = subject.highest_pfn(level)
    lowest = highest & -highest
    _round_trip(subject, level, [highest, highest ^ lowest, 1 << (highest.bit_length() - 1)])


def _round_trip(subject: ArchSubject, level: Level, pfns: Iterable[int]) -> None:
    pfn_of = subject.op(level, "pfn")
    for prot in subject.prots():
        for pfn in pfns:
            entry = subject.fresh(level, pfn, prot)
            if pfn_of(entry) != pfn:
                raise Violation(
                    f"{level}_pfn({entry:#x}) is {pfn_of(entry):#x}, the leaf was made for pfn {pfn:#x} "
                    f"with pgprot {prot:#x}: {bits(pfn_of(entry), pfn)} of the pfn"
                )


def prot_round_trip(subject: ArchSubject, level: Level) -> None:
    pgprot = subject.op(level, "pgprot")
    make = getattr(subject.ops, f"pfn_{level}")
    for pfn in subject.pfns(level):
        made: dict[int, int] = {}
        for prot in subject.prots():
            entry = make(pfn, prot)
            again = make(pfn, pgprot(entry))
            if again != entry:
                raise Violation(
                    f"pfn_{level}({pfn:#x}, {level}_pgprot({entry:#x})) is {again:#x}: the entry made again of its "
                    f"own pfn and pgprot {pgprot(entry):#x} differs in {bits(entry, again)}"
                )
            if made.setdefault(entry, prot) != prot:
                raise Violation(
                    f"pfn_{level}({pfn:#x}, ...) makes {entry:#x} of two pgprots, {made[entry]:#x} and {prot:#x}: "
                    f"it loses {bits(made[entry], prot)}"
                )


def pgprot_less_pfn(subject: ArchSubject, level: Level) -> None:
    pgprot = subject.op(level, "pgprot")
    address = subject.address_bits(level)
    known = "words" in subject.capabilities  # else only the lowest address bits are known
    for leaf in subject.leaves(level):
        got = pgprot(leaf.entry)
        expected = leaf.entry & ~address
        if kept := got & address:
            raise Violation(
                f"{level}_pgprot is {got:#x}, it keeps {bits(kept, 0)} of the address; for {shown(level, leaf)}"
            )
        if got & ~leaf.entry or (known and got != expected):
            raise Violation(
                f"{level}_pgprot is {got:#x}, the entry less its pfn is {expected:#x}: they differ in "
                f"{bits(got, expected)}; for {shown(level, leaf)}"
            )


def mapped_again(subject: ArchSubject, level: Level) -> None:
    pgprot, access, present = subject.op(level, "pgprot"), subject.arch.mmu_access, subject.op(level, "present")
    make = getattr(subject.ops, f"pfn_{level}")
    for leaf in subject.leaves(level):
        again = make(leaf.pfn, pgprot(leaf.entry))
        if present(leaf.entry) > present(again):
            raise Violation(
                f"{again:#x}, the page mapped again by {level}_pgprot, is not present; for {shown(level, leaf)}"
            )
        for write in (False, True):
            if access(level, leaf.entry, write)[1] and not access(level, again, write)[1]:
                raise Violation(
                    f"the CPU refuses a {'store' if write else 'load'} through {again:#x}, the page mapped again by "
                    f"{level}_pgprot, and allows it through {shown(level, leaf)}"
                )


def pfn_survives(subject: ArchSubject, level: Level) -> None:
    pfn_of = subject.op(level, "pfn")
    for leaf in subject.leaves(level):
        _same(level, "pfn", leaf.pfn, pfn_of(leaf.entry), leaf, "its history")
        for name, change in subject.changes(level).items():
            _same(level, "pfn", leaf.pfn, pfn_of(change(leaf.entry)), leaf, f"{level}_{name}")


# special


def special_agrees(subject: ArchSubject, level: Level) -> None:
    special, mkspecial = subject.op(level, "special"), subject.op(level, "mkspecial")
    for leaf in subject.leaves(level):
        if special(leaf.entry) != leaf.special:
            raise Violation(f"{level}_special is {special(leaf.entry)} for {shown(level, leaf)}")
        entry = mkspecial(leaf.entry)
        if special(entry) != 1:
            raise Violation(
                f"{level}_special({entry:#x}) is {special(entry)} after {level}_mkspecial, which changed "
                f"{bits(entry, leaf.entry)}, for {shown(level, leaf)}"
            )


def special_survives(subject: ArchSubject, level: Level) -> None:
    special, mkspecial = subject.op(level, "special"), subject.op(level, "mkspecial")
    for leaf in subject.leaves(level):
        for entry, is_special in ((leaf.entry, int(leaf.special)), (mkspecial(leaf.entry), 1)):
            for name, change in subject.changes(level).items():
                changed = change(entry)
                if special(changed) != is_special:
                    verb = "lost" if is_special else "invented"
                    raise Violation(
                        f"{level}_{name}({entry:#x}) = {changed:#x} {verb} special, it changed {bits(entry, changed)}; "
                        f"for {shown(level, leaf)}"
                    )


def special_disturbs_nothing(subject: ArchSubject, level: Level) -> None:
    mkspecial = subject.op(level, "mkspecial")
    others = [name for name in ("pfn", *_PREDICATES) if name != "special" and subject.has(f"{level}_{name}")]
    for leaf in subject.leaves(level):
        entry = mkspecial(leaf.entry)
        for name in others:
            predicate = subject.op(level, name)
            before, after = predicate(leaf.entry), predicate(entry)
            if before != after:
                raise Violation(
                    f"{level}_mkspecial sets {bits(leaf.entry, entry)}, and changes {level}_{name} from {before:#x} to "
                    f"{after:#x}, for {shown(level, leaf)}"
                )


# leaf, table, none


def leaf_is_a_leaf(subject: ArchSubject, level: Level) -> None:
    expected = {"none": 0} if level == "pte" else {"none": 0, "leaf": 1, "trans_huge": 1, "bad": 1}
    for leaf in subject.leaves(level):
        expect(subject, level, leaf.entry, expected, f"the leaf {shown(level, leaf)}")
        if leaf.vm_flags & _ACCESS:
            expect(subject, level, leaf.entry, {"present": 1}, f"the leaf {shown(level, leaf)}")


def idempotent(subject: ArchSubject, level: Level) -> None:
    changes = dict(subject.changes(level))
    if f"pfnmap:{level}" in subject.capabilities:
        changes["mkspecial"] = subject.op(level, "mkspecial")
    for leaf in subject.leaves(level):
        for name, change in changes.items():
            once = change(leaf.entry)
            twice = change(once)
            if once != twice:
                raise Violation(
                    f"{level}_{name} twice gives {twice:#x}, once {once:#x}: {bits(once, twice)}; "
                    f"for {shown(level, leaf)}"
                )


def modify_keeps(subject: ArchSubject, level: Level) -> None:
    modify, pfn_of, write = subject.op(level, "modify"), subject.op(level, "pfn"), subject.op(level, "write")
    names = [name for name in ("special", "devmap", "dirty") if subject.has(f"{level}_{name}")]
    kept = [("pfn", pfn_of), *((name, subject.op(level, name)) for name in names)]
    writable: dict[int, int] = {}
    marks = [subject.op(level, "mkdevmap")] if subject.has(f"{level}_mkdevmap") else []
    for leaf in subject.leaves(level):
        entries = (leaf.entry, *(mark(leaf.entry) for mark in marks))
        told = [[(name, predicate, predicate(entry)) for name, predicate in kept] for entry in entries]
        for flags in range(leaf.vm_flags & VM_SHARED, (leaf.vm_flags & VM_SHARED) + 8):
            prot = subject.mprotected(leaf.prot, flags)
            if prot not in writable:
                writable[prot] = write(subject.fresh(level, leaf.pfn, prot))
            for before, answers in zip(entries, told, strict=True):
                entry = modify(before, prot)
                for name, predicate, answer in answers:
                    if (got := predicate(entry)) != answer:
                        how = f"{level}_modify({before:#x}, {prot:#x}) = {entry:#x}"
                        _same(level, name, answer, got, leaf, how)
                if write(entry) > writable[prot]:
                    raise Violation(
                        f"{level}_modify({before:#x}, {prot:#x}) = {entry:#x} can be written, its new pgprot forbids "
                        f"that; for {shown(level, leaf)}"
                    )


def modify_forgets(subject: ArchSubject, level: Level) -> None:
    modify, mkyoung = subject.op(level, "modify"), subject.changes(level).get("mkyoung")
    for leaf in subject.leaves(level)[::_SOME]:
        young = mkyoung(leaf.entry) if mkyoung else leaf.entry  # riscv64's pgprots are, but for that of PROT_NONE
        shared = leaf.vm_flags & VM_SHARED
        prots = dict.fromkeys(subject.mprotected(leaf.prot, flags) for flags in range(shared, shared + 8))
        for last in prots:
            once = modify(young, last)
            for first in prots:
                if (twice := modify(modify(young, first), last)) != once:
                    raise Violation(
                        f"{level}_modify to {first:#x} and then to {last:#x} gives {twice:#x}, to the latter at once "
                        f"{once:#x}: {bits(once, twice)}; for {young:#x}, made young of {shown(level, leaf)}"
                    )


def mkhuge_alone(subject: ArchSubject, level: Level) -> None:
    make, mkhuge = getattr(subject.ops, f"pfn_{level}"), subject.op(level, "mkhuge")
    # s390 makes it young, too.
    others = [name for name in ("none", "write", "dirty", "special") if subject.has(f"{level}_{name}")]
    for prot in subject.prots():
        for pfn in subject.pfns(level)[-8:]:
            entry = make(pfn, prot)
            huge = mkhuge(entry)
            for name in others:
                before, after = subject.op(level, name)(entry), subject.op(level, name)(huge)
                if before != after:
                    raise Violation(
                        f"{level}_mkhuge({entry:#x}) = {huge:#x} changes {level}_{name} from {before:#x} to {after:#x}"
                    )
            if (twice := mkhuge(huge)) != huge:
                raise Violation(f"{level}_mkhuge({huge:#x}) is {twice:#x}, of what is huge already")


def huge_pte_is_a_leaf(subject: ArchSubject) -> None:
    mkhuge, leaf = subject.op("pte", "mkhuge"), subject.op("pmd", "leaf")
    for prot in subject.prots():
        for pfn in subject.pfns("pmd")[-4:]:
            entry = subject.ops.pfn_pte(pfn, prot)
            if not leaf(mkhuge(entry)):
                raise Violation(
                    f"pte_mkhuge({entry:#x}) = {mkhuge(entry):#x} is no leaf in a PMD's slot, where hugetlb puts it"
                )


def devmap_agrees(subject: ArchSubject, level: Level) -> None:
    devmap, mkdevmap = subject.op(level, "devmap"), subject.op(level, "mkdevmap")
    names = ("pfn", "present", "none", "leaf", "write", "dirty", "young")
    others = [(name, subject.op(level, name)) for name in names if subject.has(f"{level}_{name}")]
    for leaf in subject.leaves(level):
        entry = mkdevmap(leaf.entry)
        if devmap(leaf.entry) or not devmap(entry):
            raise Violation(
                f"{level}_devmap is {devmap(leaf.entry)} before {level}_mkdevmap and {devmap(entry)} after it, "
                f"for {shown(level, leaf)}"
            )
        for name, ask in others:
            _same(level, name, ask(leaf.entry), ask(entry), leaf, f"{level}_mkdevmap")


def access_permitted(subject: ArchSubject, level: Level) -> None:
    permitted, write = subject.op(level, "access_permitted"), subject.op(level, "write")
    own = f"{level}_access_permitted" in subject.capabilities  # the headers' lets PROT_NONE be read
    for leaf in subject.leaves(level):
        if own and not leaf.vm_flags & _ACCESS and permitted(leaf.entry, 0):
            raise Violation(
                f"{level}_access_permitted reads through {shown(level, leaf)}, whose mapping allows nothing"
            )
        if not leaf.vm_flags & VM_READ:
            continue
        if not permitted(leaf.entry, 0):
            raise Violation(f"{level}_access_permitted refuses to read through {shown(level, leaf)}")
        if permitted(leaf.entry, 1) != write(leaf.entry):
            raise Violation(
                f"{level}_access_permitted of a write is {permitted(leaf.entry, 1)}, {level}_write is "
                f"{write(leaf.entry)}, for {shown(level, leaf)}"
            )


# The CPU


def cpu_access(subject: ArchSubject, level: Level) -> None:
    _access(subject, level, [leaf for leaf in subject.leaves(level) if not _modified(leaf)])


def cpu_access_after_modify(subject: ArchSubject, level: Level) -> None:
    _access(subject, level, [leaf for leaf in subject.leaves(level) if _modified(leaf)])


def _modified(leaf: Leaf) -> bool:
    return any("_modify(" in step for step in leaf.history)


def _access(subject: ArchSubject, level: Level, leaves: Iterable[Leaf]) -> None:
    changes = subject.changes(level)
    for leaf in leaves:
        for write in (False, True):
            what = f"a {'store' if write else 'load'} through {shown(level, leaf)}"
            entry, allowed = subject.arch.mmu_access(level, leaf.entry, write)
            if allowed:
                _check_marked(subject, level, entry, write, what)
            elif _must_be_allowed(subject, level, leaf, write):
                raise Violation(f"the CPU refuses {what}")
            if allowed and not leaf.vm_flags & _ACCESS:
                raise Violation(f"the CPU allows {what}, whose mapping has no permissions")
            _same(level, "pfn", leaf.pfn, subject.op(level, "pfn")(entry), leaf, what)
        protected = changes["wrprotect"](leaf.entry) if "wrprotect" in changes else None
        if protected is not None and subject.arch.mmu_access(level, protected, True)[1]:
            raise Violation(f"the CPU allows a store through {protected:#x}, {level}_wrprotect of {shown(level, leaf)}")


def _check_marked(subject: ArchSubject, level: Level, entry: int, write: bool, what: str) -> None:
    marks = ("young", "dirty", "write") if write else ("young",)
    for name in marks:
        if subject.has(f"{level}_{name}") and not subject.op(level, name)(entry):
            raise Violation(f"the CPU allows {what}, which leaves {entry:#x} with {level}_{name} 0")


def _must_be_allowed(subject: ArchSubject, level: Level, leaf: Leaf, write: bool) -> bool:
    """Tell whether an entry is all that an access needs: then only a fault without end could refuse it."""
    needed = ("young", "dirty", "write") if write else ("young",)
    flags = VM_READ | VM_WRITE if write else VM_READ
    if leaf.vm_flags & flags != flags:
        return False
    return all(subject.has(f"{level}_{name}") and subject.op(level, name)(leaf.entry) for name in needed)


# Any word


def answers_are_words(subject: ArchSubject) -> None:
    for name, (function, words, plain) in subject.elementwise().items():
        for first in subject.words(_level_of(name)):
            inputs = (first,) if words == 1 else (first, first ^ 0x5A5A)
            try:
                got = function(*inputs, *plain)
            except Refused:  # BUG() in the kernel
                continue
            if got is None:
                raise Violation(f"{name} answers None: an entry hook owns its whole domain and always answers")
            if type(got) is not int or not 0 <= got < 1 << 64:
                raise Violation(f"{name}({_hexes(inputs)}) is {got!r}, which is no unsigned 64-bit int")
            if name.partition("_")[2] in _ZERO_OR_ONE and got > 1:
                raise Violation(f"{name}({_hexes(inputs)}) is {got:#x}; a predicate is 0 or 1")


def hooks_answer(subject: ArchSubject) -> None:
    ops = subject.ops
    asked = {
        "arch_needs_pgtable_deposit": ((),),
        "arch_pkeys_enabled": ((),),
        "has_transparent_hugepage": ((),),
        "has_transparent_pud_hugepage": ((),),
        "arch_calc_vm_prot_bits": tuple((flags,) for flags in range(8)),
        "vm_get_page_prot": tuple((flags,) for flags in range(16)),
        "pgprot_modify": tuple((subject.prot(a), subject.prot(b)) for a in range(16) for b in range(16)),
    }
    for name, inputs in asked.items():
        for arguments in inputs:
            if getattr(ops, name)(*arguments) is None:
                raise Violation(f"{name}({_hexes(arguments)}) answers None: an entry hook always answers")


def arrays_agree(subject: ArchSubject) -> None:
    import numpy as np

    for name, (function, words, plain) in subject.elementwise().items():
        first = subject.words(_level_of(name))
        inputs = [first] if words == 1 else [first, first[::-1]]
        arrays = [np.array(column, dtype=np.uint64) for column in inputs]
        before = [column.copy() for column in arrays]
        try:
            got = function(*arrays, *plain)
        except Refused:  # BUG() in the kernel
            continue
        if any((a != b).any() for a, b in zip(arrays, before, strict=True)):
            raise Violation(f"{name} changed the array that it was given")
        if not isinstance(got, np.ndarray) or got.dtype != np.uint64 or got.shape != arrays[0].shape:
            raise Violation(
                f"{name} of a uint64 array is {type(got).__name__} {getattr(got, 'dtype', '')}, no such array"
            )
        for number, lane in enumerate(got.tolist()):
            arguments = tuple(column[number] for column in inputs)
            scalar = function(*arguments, *plain)
            if scalar != lane:
                raise Violation(
                    f"{name}({_hexes(arguments)}) is {scalar:#x} for an int and {lane:#x} in an array: "
                    f"{bits(scalar, lane)}"
                )


def _level_of(name: str) -> Level | None:
    return next((level for level in LEVELS if name.startswith(f"{level}_") or name == f"pfn_{level}"), None)


def _hexes(values: Iterable[int]) -> str:
    return ", ".join(hex(value) for value in values)


_LEAF = ("leaf:X",)
_SPECIAL = ("pfnmap:X",)

CHECKS = (
    Check(
        "answers-are-words",
        "every op is total: any word gives an unsigned 64-bit int, a predicate 0 or 1 (or, for BUG(), a refusal)",
        answers_are_words,
    ),
    Check(
        "hooks-answer",
        "an entry hook owns its whole domain; None would mean that somebody else is to be asked",
        hooks_answer,
    ),
    Check(
        "arrays-agree",
        "the mm core gives an op whole arrays of entries, lane by lane the same bits as ints",
        arrays_agree,
    ),
    Check(
        "pfn-round-trip",
        "the pfn that goes into an entry comes out of it, with any protection",
        pfn_round_trip,
        _LEAF,
        LEAF_LEVELS,
    ),
    Check(
        "highest-address",
        "the highest physical address that the CPU's format holds fits in an entry",
        highest_address,
        (*_LEAF, "words"),
        LEAF_LEVELS,
    ),
    Check(
        "prot-round-trip",
        "an entry made again of its own pfn and pgprot is the same, and no two pgprots make the same entry",
        prot_round_trip,
        (*_LEAF, "X_pgprot"),
        LEAF_LEVELS,
    ),
    Check(
        "pgprot-less-pfn",
        "pgprot is the entry less its pfn: follow_pfnmap gives it to whoever maps the page again",
        pgprot_less_pfn,
        (*_LEAF, "X_pgprot"),
        LEAF_LEVELS,
    ),
    Check(
        "mapped-again",
        "a leaf of a leaf's pgprot is as present and as accessible: so the kernel maps a BAR for itself",
        mapped_again,
        (*_LEAF, "X_pgprot"),
        LEAF_LEVELS,
    ),
    Check("pfn-survives", "no op on a leaf changes what it maps", pfn_survives, _LEAF, LEAF_LEVELS),
    Check(
        "special-agrees",
        "special tells exactly what mkspecial made: vm_normal_page must not find a struct page there",
        special_agrees,
        _SPECIAL,
        LEAF_LEVELS,
    ),
    Check("special-survives", "no other op drops or invents special", special_survives, _SPECIAL, LEAF_LEVELS),
    Check(
        "special-disturbs-nothing",
        "mkspecial changes nothing that another op sees",
        special_disturbs_nothing,
        _SPECIAL,
        LEAF_LEVELS,
    ),
    Check(
        "leaf-is-a-leaf",
        "a leaf, whatever was done to it, is never taken for empty or for a table",
        leaf_is_a_leaf,
        _LEAF,
        LEAF_LEVELS,
    ),
    Check("idempotent", "an op on a leaf done twice is done once", idempotent, _LEAF, LEAF_LEVELS),
    Check(
        "modify-keeps",
        "mprotect keeps pfn, special and dirty, and gives no write permission away",
        modify_keeps,
        (*_LEAF, "X_modify"),
        LEAF_LEVELS,
    ),
    Check(
        "modify-forgets",
        "the last mprotect decides: the ones before leave nothing in a leaf",
        modify_forgets,
        (*_LEAF, "X_modify"),
        LEAF_LEVELS,
    ),
    Check(
        "mkhuge-alone",
        "mkhuge makes a leaf of an entry and changes nothing else",
        mkhuge_alone,
        (*_LEAF, "X_mkhuge"),
        ("pmd", "pud"),
    ),
    Check(
        "hugetlb-leaf",
        "hugetlb makes a huge PTE and stores it in the slot of a PMD: there it is a leaf",
        huge_pte_is_a_leaf,
        ("pte_mkhuge", "slots:pmd", "leaf:pmd"),
    ),
    Check(
        "devmap-agrees",
        "devmap tells exactly what mkdevmap made, which is still the same leaf",
        devmap_agrees,
        (*_LEAF, "X_devmap", "X_mkdevmap"),
        LEAF_LEVELS,
    ),
    Check(
        "access-permitted",
        "gup-fast may read what can be read, and write exactly what is writable",
        access_permitted,
        _LEAF,
        LEAF_LEVELS,
    ),
    Check(
        "cpu-access",
        "the table walker and the ops agree on what can be accessed, and on what it leaves marked",
        cpu_access,
        _LEAF,
        LEAF_LEVELS,
    ),
    Check(
        "cpu-access-modified",
        "they agree, too, once mprotect changed a leaf",
        cpu_access_after_modify,
        (*_LEAF, "X_modify"),
        LEAF_LEVELS,
    ),
)
