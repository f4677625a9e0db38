"""Checks of the marks of a leaf: what write, dirty, young and soft-dirty tell, who sets them, and what keeps them.

The mm core installs a leaf for reading as it is made of its pgprot, and marks one for writing first (mm/memory.c,
insert_pfn); afterwards the CPU marks, or faults.
"""

from __future__ import annotations

from itertools import combinations
from typing import Final

from pfnmap.contract.entry import Level
from pfnmap.testing.arch_subject import LEAF_LEVELS, ArchSubject, allowed, shown
from pfnmap.testing.check import Check, Violation, bits
from pfnmap.vm_flags import VM_READ, VM_SHARED, VM_WRITE

__all__ = ["CHECKS"]

_SEEN = ("pfn", "present", "none", "leaf", "bad", "trans_huge", "write", "dirty", "young", "special", "devmap")
_FLAGS = {
    "write": ("mkwrite", "wrprotect"),
    "dirty": ("mkdirty", "mkclean"),
    "young": ("mkyoung", "mkold"),
}
_SOME: Final = 5  # every so manyth leaf has all protections, cache modes and lengths of history


def _flag(flag: str) -> Check:
    """Return the check of one flag: its two ops do what they say and leave the other flags alone."""
    on, off = _FLAGS[flag]

    def check(subject: ArchSubject, level: Level) -> None:
        changes = dict(subject.changes(level))
        if subject.has(f"{level}_mkwrite_novma"):
            changes["mkwrite_novma"] = subject.op(level, "mkwrite_novma")
        flags = {name: subject.op(level, name) for name in _FLAGS if subject.has(f"{level}_{name}")}
        for leaf in subject.leaves(level):
            for name, answer in ((on, 1), (f"{on}_novma", 1), (off, 0)):
                if name not in changes or (answer and not leaf.vm_flags & VM_WRITE):
                    continue
                changed = changes[name](leaf.entry)
                for other, predicate in flags.items():
                    expected = answer if other == flag else predicate(leaf.entry)
                    if predicate(changed) != expected:
                        raise Violation(
                            f"{level}_{other}({changed:#x}) is {predicate(changed)} after {level}_{name}; it must be "
                            f"{expected}, for {shown(level, leaf)}"
                        )

    return Check(
        f"{on}-{off}",
        f"X_{flag} tells what {on} and {off} made, and neither touches the other two of write, dirty, young",
        check,
        ("leaf:X", f"X_{flag}"),
        LEAF_LEVELS,
    )


def mkwrite_after_wrprotect(subject: ArchSubject, level: Level) -> None:
    changes = subject.changes(level)
    if "mkwrite" not in changes:
        return
    seen = [name for name in _SEEN if subject.has(f"{level}_{name}")]
    for leaf in subject.leaves(level):
        if not leaf.vm_flags & VM_WRITE:
            continue
        once = changes["mkwrite"](leaf.entry)
        again = changes["mkwrite"](changes["wrprotect"](once))
        for name in seen:
            before, after = subject.op(level, name)(once), subject.op(level, name)(again)
            if before != after:
                raise Violation(
                    f"{level}_mkwrite({level}_wrprotect({once:#x})) = {again:#x} has {level}_{name} {after:#x}, "
                    f"no longer {before:#x}: {bits(once, again)}; for {shown(level, leaf)}"
                )


def marks_in_any_order(subject: ArchSubject, level: Level) -> None:
    changes = subject.changes(level)
    about = {name: flag for flag, names in _FLAGS.items() for name in names if name in changes}
    if f"pfnmap:{level}" in subject.capabilities:
        changes, about = {**changes, "mkspecial": subject.op(level, "mkspecial")}, {**about, "mkspecial": "special"}
    pairs = [pair for pair in combinations(about, 2) if about[pair[0]] != about[pair[1]]]
    for leaf in subject.leaves(level)[::_SOME]:
        for one, other in pairs:
            if allowed(one, leaf.vm_flags) and allowed(other, leaf.vm_flags):
                first, second = changes[other](changes[one](leaf.entry)), changes[one](changes[other](leaf.entry))
                if first != second:
                    raise Violation(
                        f"{level}_{other} after {level}_{one} gives {first:#x}, and {second:#x} the other way round: "
                        f"{bits(first, second)}; for {shown(level, leaf)}"
                    )


def dirty_survives(subject: ArchSubject, level: Level) -> None:
    dirty, changes = subject.op(level, "dirty"), dict(subject.changes(level))
    changes.pop("mkclean", None)
    for leaf in subject.leaves(level):
        entry, allowed = subject.arch.mmu_access(level, leaf.entry, True)
        if not allowed:
            continue
        outcomes = {name: change(entry) for name, change in changes.items()}
        if subject.has(f"{level}_modify"):
            for flags in range(leaf.vm_flags & VM_SHARED, (leaf.vm_flags & VM_SHARED) + 8):
                prot = subject.mprotected(leaf.prot, flags)
                outcomes[f"modify(..., {prot:#x})"] = subject.op(level, "modify")(entry, prot)
        for name, outcome in outcomes.items():
            if not dirty(outcome):
                raise Violation(
                    f"{level}_{name} of {entry:#x}, which a store made dirty, is {outcome:#x} with {level}_dirty 0: "
                    f"the store is forgotten; {shown(level, leaf)}"
                )


def young_survives(subject: ArchSubject, level: Level) -> None:
    young, modify, changes = subject.op(level, "young"), subject.op(level, "modify"), subject.changes(level)
    prots = [subject.prot(flags) for flags in range(16)]
    pfn = subject.pfns(level)[-1]
    if not all(young(subject.fresh(level, pfn, prot)) for prot in prots):
        return  # the pgprot decides: LoongArch's accessed bit is that of validity, and PROT_NONE takes it away
    old = {subject.op(level, "pgprot")(changes["mkold"](subject.fresh(level, pfn, prot))) for prot in prots}
    for leaf in subject.leaves(level)[::_SOME]:
        if allowed("mkyoung", leaf.vm_flags):
            marked = changes["mkyoung"](leaf.entry)
            for prot in sorted(old):
                if not young(entry := modify(marked, prot)):
                    raise Violation(
                        f"{level}_young({entry:#x}) is 0 after {level}_modify({marked:#x}, {prot:#x}): the access is "
                        f"forgotten; {marked:#x} is mkyoung of {shown(level, leaf)}"
                    )


def soft_dirty(subject: ArchSubject, level: Level) -> None:
    tells, mark = subject.op(level, "soft_dirty"), subject.op(level, "mksoft_dirty")
    changes = dict(subject.changes(level))
    clear = changes.pop("clear_soft_dirty", None)
    others = [(name, subject.op(level, name)) for name in _SEEN if subject.has(f"{level}_{name}")]
    for leaf in subject.leaves(level):
        if tells(fresh := subject.fresh(level, leaf.pfn, leaf.prot)):
            raise Violation(f"{level}_soft_dirty({fresh:#x}) is 1 of a leaf that is new, of pgprot {leaf.prot:#x}")
        marked = mark(leaf.entry)
        outcomes = {"mksoft_dirty": marked, **{name: change(marked) for name, change in changes.items()}}
        if subject.has(f"{level}_modify"):
            outcomes["modify"] = subject.op(level, "modify")(marked, leaf.prot)
        for name, outcome in outcomes.items():
            if not tells(outcome):
                raise Violation(
                    f"{level}_soft_dirty({outcome:#x}) is 0 after {level}_{name} of what {level}_mksoft_dirty marked: "
                    f"the page counts as not written since; for {shown(level, leaf)}"
                )
        cleared = clear(marked) if clear else marked
        if clear and tells(cleared):
            raise Violation(f"{level}_clear_soft_dirty({marked:#x}) = {cleared:#x} leaves {level}_soft_dirty 1")
        for name, predicate in others:
            if not predicate(leaf.entry) == predicate(marked) == predicate(cleared):
                raise Violation(
                    f"{level}_{name} is {predicate(leaf.entry):#x}, {predicate(marked):#x} after "
                    f"{level}_mksoft_dirty and {predicate(cleared):#x} once it is cleared; for {shown(level, leaf)}"
                )


def hardware_marks(subject: ArchSubject, level: Level) -> None:
    changes = subject.changes(level)
    for leaf in subject.leaves(level):
        if leaf.vm_flags & VM_READ and "mkold" in changes:
            old = changes["mkold"](leaf.entry)
            if not subject.arch.mmu_access(level, old, False)[1]:
                raise Violation(f"a load through {old:#x} faults, though the CPU sets accessed; {shown(level, leaf)}")
        if leaf.vm_flags & VM_READ and leaf.vm_flags & VM_WRITE and {"mkwrite", "mkclean"} <= changes.keys():
            clean = changes["mkwrite"](changes["mkclean"](leaf.entry))
            if not subject.arch.mmu_access(level, clean, True)[1]:
                raise Violation(f"a store through {clean:#x} faults, though the CPU sets dirty; {shown(level, leaf)}")


def new_leaf_is_accessible(subject: ArchSubject, level: Level) -> None:
    pfn = subject.pfns(level)[-1]
    for flags in (flags for flags in range(16) if flags & VM_READ):
        for cache in ("", "pgprot_noncached", "pgprot_writecombine"):
            entry = subject.fresh(level, pfn, subject.prot(flags, cache))
            if not subject.arch.mmu_access(level, entry, False)[1]:
                raise Violation(
                    f"a load through {entry:#x}, the {level} leaf that a read fault installs with pgprot "
                    f"{subject.prot(flags, cache):#x}, faults once more"
                )


_LEAF = ("leaf:X",)

CHECKS = (
    *(_flag(flag) for flag in _FLAGS),
    Check(
        "mkwrite-after-wrprotect",
        "what a write fault undoes of a write protection leaves no trace that an op sees",
        mkwrite_after_wrprotect,
        (*_LEAF, "X_wrprotect"),
        LEAF_LEVELS,
    ),
    Check(
        "marks-in-any-order",
        "write, dirty, young and special are apart: ops about two of them make the same leaf in either order",
        marks_in_any_order,
        _LEAF,
        LEAF_LEVELS,
    ),
    Check(
        "dirty-survives",
        "what a store marked dirty stays so until mkclean, whatever write protection or mprotect does",
        dirty_survives,
        (*_LEAF, "X_dirty"),
        LEAF_LEVELS,
    ),
    Check(
        "young-survives",
        "where every mapping's pgprot is young, modify keeps what is young so, also with the pgprot of an old leaf",
        young_survives,
        (*_LEAF, "X_young", "X_mkyoung", "X_mkold", "X_modify", "X_pgprot"),
        LEAF_LEVELS,
    ),
    Check(
        "hardware-marks",
        "a CPU that sets accessed and dirty itself takes no fault for them",
        hardware_marks,
        (*_LEAF, "hw_access_dirty"),
        LEAF_LEVELS,
    ),
    Check(
        "soft-dirty",
        "soft_dirty tells what mksoft_dirty marked, until it is cleared, and the mark changes nothing else",
        soft_dirty,
        (*_LEAF, "soft-dirty", "X_soft_dirty", "X_mksoft_dirty"),
        LEAF_LEVELS,
    ),
    Check(
        "new-leaf-accessible",
        "what a read fault installs can be read at once: pgprots are accessed from birth, for CPUs that do not mark",
        new_leaf_is_accessible,
        _LEAF,
        LEAF_LEVELS,
    ),
)
