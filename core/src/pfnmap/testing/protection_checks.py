"""Checks of protections: what protection_map grants, what cache modes change and keep, which accesses are refused.

What a mapping must and must not allow is mmap(2)'s; that a private page is copied before it is written is why its first
protection forbids that (mm/mmap.c, vm_get_page_prot). The rest follows from what the drivers and mprotect use the
functions for: vfio-pci maps a BAR with pgprot_noncached, and pgprot_writecombine.
"""

from __future__ import annotations

from collections.abc import Iterator

from pfnmap.contract.entry import Level
from pfnmap.testing.arch_subject import LEAF_LEVELS, ArchSubject
from pfnmap.testing.check import Check, Violation, bits
from pfnmap.vm_flags import VM_EXEC, VM_READ, VM_SHARED, VM_WRITE

__all__ = ["CHECKS"]

_ACCESS = VM_READ | VM_WRITE | VM_EXEC
_SEGV_CODES = 10
"""The highest si_code of SIGSEGV (include/uapi/asm-generic/siginfo.h, NSIGSEGV)."""


def _of(flags: int) -> str:
    names = {VM_READ: "READ", VM_WRITE: "WRITE", VM_EXEC: "EXEC", VM_SHARED: "SHARED"}
    return "|".join(name for flag, name in names.items() if flags & flag) or "no permission"


def _leaves(subject: ArchSubject, level: Level) -> Iterator[tuple[int, int]]:
    """Yield (VM_ flags, leaf) for each protection that mmap gives: it may add flags to those that were asked for."""
    for flags in range(16):
        if subject.ops.arch_calc_vm_prot_bits(flags & _ACCESS) & _ACCESS & ~flags:
            continue
        yield flags, subject.fresh(level, subject.pfns(level)[-1], subject.prot(flags))


def protection_map(subject: ArchSubject, level: Level) -> None:
    write, present = subject.op(level, "write"), subject.op(level, "present")
    if (length := len(subject.arch.protection_map)) != 16:
        raise Violation(f"protection_map has {length} pgprots, one for each of READ, WRITE, EXEC and SHARED is 16")
    for flags, entry in _leaves(subject, level):
        what = f"a leaf {entry:#x} of a vma with {_of(flags)}"
        if flags & _ACCESS and not present(entry):
            raise Violation(f"{level}_present is 0 of {what}")
        granted = int(flags & (VM_SHARED | VM_WRITE) == VM_SHARED | VM_WRITE)
        if write(entry) != granted:
            raise Violation(f"{level}_write is {write(entry)} of {what}; it must be {granted}")
        # Nothing makes a leaf young that nobody may access, and sparc64's mkyoung would make it valid.
        old = flags & _ACCESS and subject.has(f"{level}_mkyoung")
        young = subject.op(level, "mkyoung")(entry) if old else entry
        dirty = subject.op(level, "mkdirty")(young) if granted and subject.has(f"{level}_mkdirty") else young
        for store, expected in ((False, _loads(flags)), (True, bool(granted and flags & VM_READ))):
            allowed = subject.arch.mmu_access(level, dirty, store)[1]
            if expected is not None and allowed != expected and (store is False or not granted or flags & VM_READ):
                verb = "allows" if allowed else "refuses"
                raise Violation(f"the CPU {verb} a {'store' if store else 'load'} through {what}")


def shared_is_as_private(subject: ArchSubject) -> None:
    for flags in (flags for flags in range(8) if not flags & VM_WRITE):
        private, shared = subject.prot(flags), subject.prot(flags | VM_SHARED)
        if private != shared:
            raise Violation(
                f"vm_get_page_prot of a vma with {_of(flags)} is {private:#x}, and {shared:#x} of a shared one: they "
                f"differ in {bits(private, shared)}, and nothing is written"
            )


def _loads(flags: int) -> bool | None:
    """Tell whether a load must be allowed; None where it depends on the CPU (execute or write alone)."""
    return True if flags & VM_READ else False if not flags & _ACCESS else None


def execution(subject: ArchSubject, level: Level) -> None:
    executes, loads = subject.permissions(level)
    pfn = subject.pfns(level)[-1]
    own_bit = executes[0] & ~loads[0]
    for flags, entry in _leaves(subject, level):
        told_apart = own_bit or entry != subject.fresh(level, pfn, subject.prot(flags ^ VM_EXEC))
        valid = subject.word_format(level).valid
        readable = entry & valid[0] == valid[1] and entry & loads[0] == loads[1]
        executable = entry & valid[0] == valid[1] and entry & executes[0] == executes[1]
        for what, got, expected in (
            ("executed", executable, bool(flags & VM_EXEC) or (False if told_apart else None)),
            ("read", readable, _loads(flags)),
        ):
            if expected is not None and got != expected:
                raise Violation(
                    f"the word {entry:#x} of a vma with {_of(flags)} can {'' if got else 'not '}be {what} by user space"
                )


def access_error(subject: ArchSubject) -> None:
    refuses = subject.arch.access_error
    for flags in range(16):
        for write, granted in ((False, _loads(flags)), (True, bool(flags & VM_WRITE))):
            got = refuses(flags, write)
            if type(got) is not int or not 0 <= got <= _SEGV_CODES:
                raise Violation(
                    f"access_error({flags}, write={write}) is {got!r}, which is no si_code of SIGSEGV, nor 0"
                )
            if granted is not None and (got == 0) != granted:
                raise Violation(
                    f"access_error({flags}, write={write}) is {got}: a {'store to' if write else 'load from'} a vma "
                    f"with {_of(flags)} is {'allowed' if granted else 'refused'}"
                )


def execute_only(subject: ArchSubject, level: Level) -> None:
    _, loads = subject.permissions(level)
    valid = subject.word_format(level).valid
    for asked in (VM_EXEC, VM_EXEC | VM_SHARED):
        flags = asked | subject.ops.arch_calc_vm_prot_bits(VM_EXEC)
        entry = subject.fresh(level, subject.pfns(level)[-1], subject.prot(flags))
        readable = entry & valid[0] == valid[1] and entry & loads[0] == loads[1]
        if readable == bool(subject.arch.access_error(flags, False)):
            raise Violation(
                f"the fault of a load from a vma with {_of(flags)} is {'refused' if readable else 'served'}, and its "
                f"word {entry:#x} can {'' if readable else 'not '}be read"
            )


def decryption(subject: ArchSubject) -> None:
    decrypted = subject.ops.pgprot_decrypted
    if not any(decrypted(word) != word for word in subject.words()):
        return  # no memory is encrypted
    for flags in (flags for flags in range(16) if flags & _ACCESS):
        prot = subject.prot(flags)
        if (shared := decrypted(prot)) == prot:
            raise Violation(f"pgprot_decrypted changes nothing of {prot:#x}, the pgprot of a vma with {_of(flags)}")
        if (twice := decrypted(shared)) != shared:
            raise Violation(f"pgprot_decrypted twice gives {twice:#x}, once {shared:#x}: {bits(shared, twice)}")


# Cache modes


def _modes(subject: ArchSubject) -> dict[str, dict[int, int]]:
    """Return what each cache mode makes of the pgprots of mappings: mode -> VM_ flags -> pgprot."""
    modes = ("", "pgprot_noncached", "pgprot_writecombine", "pgprot_device")
    return {mode: {flags: subject.prot(flags, mode) for flags in range(16) if flags & _ACCESS} for mode in modes}


def noncached_differs(subject: ArchSubject) -> None:
    ops, modes = subject.ops, _modes(subject)
    for flags, plain in modes[""].items():
        noncached, combining = modes["pgprot_noncached"][flags], modes["pgprot_writecombine"][flags]
        if noncached == plain:
            raise Violation(f"pgprot_noncached changes nothing of {plain:#x}, the pgprot of a vma with {_of(flags)}")
        if modes["pgprot_device"][flags] == plain:
            raise Violation(f"pgprot_device changes nothing of {plain:#x}, the pgprot of a vma with {_of(flags)}")
        undone = ops.pgprot_noncached(combining)
        if combining != noncached and undone in (combining, plain):
            raise Violation(
                f"pgprot_noncached({combining:#x}) is {undone:#x}: {combining:#x} is write-combining, and stays so"
            )
        for mode in ("pgprot_noncached", "pgprot_writecombine", "pgprot_device"):
            once = modes[mode][flags]
            if (twice := getattr(ops, mode)(once)) != once:
                raise Violation(f"{mode} twice gives {twice:#x}, once {once:#x}: {bits(once, twice)}")


def writecombine_is_uncached(subject: ArchSubject) -> None:
    modes = _modes(subject)
    for flags, plain in modes[""].items():
        noncached, combining = modes["pgprot_noncached"][flags], modes["pgprot_writecombine"][flags]
        if combining == plain != noncached:
            raise Violation(
                f"pgprot_writecombine changes nothing of {plain:#x}, the pgprot of a vma with {_of(flags)}: without "
                f"such a memory type it would be pgprot_noncached, {noncached:#x}"
            )


def permissions_survive(subject: ArchSubject, level: Level) -> None:
    names = [name for name in ("present", "write", "young", "dirty", "none", "leaf") if subject.has(f"{level}_{name}")]
    pfn = subject.pfns(level)[-1]
    modes = _modes(subject)
    for flags, plain in modes[""].items():
        cached = subject.fresh(level, pfn, plain)
        for mode in list(modes)[1:]:
            entry = subject.fresh(level, pfn, modes[mode][flags])
            seen = [(f"{level}_{name}", subject.op(level, name)) for name in names]
            seen += [(f"mmu_access(write={w})", lambda e, w=w: subject.arch.mmu_access(level, e, w)[1]) for w in (0, 1)]
            for name, ask in seen:
                if ask(entry) != ask(cached):
                    raise Violation(
                        f"{mode} changes {name} from {int(ask(cached))} to {int(ask(entry))}, for {entry:#x} of a vma "
                        f"with {_of(flags)}"
                    )
            if "permissions" in subject.capabilities:
                _grants_no_execution(subject, level, mode, cached, entry)


def _grants_no_execution(subject: ArchSubject, level: Level, mode: str, cached: int, entry: int) -> None:
    """Raise Violation where a cache mode lets be executed what could not be; arm64's take execution away."""
    execute, _ = subject.permissions(level)
    if cached & execute[0] != execute[1] and entry & execute[0] == execute[1]:
        raise Violation(f"{mode} lets user space execute {entry:#x}, which it cannot {cached:#x}")


def modify_keeps_the_memory_type(subject: ArchSubject, level: Level) -> None:
    modify, ops, pfn = subject.op(level, "modify"), subject.ops, subject.pfns(level)[-1]
    modes = _modes(subject)
    memory_type = 0
    for mode in modes:
        for flags, prot in modes[mode].items():
            if flags & (VM_WRITE | VM_EXEC):  # permissions are another law's
                continue
            memory_type |= subject.fresh(level, pfn, prot) ^ subject.fresh(level, pfn, modes[""][flags])
    for mode in modes:
        for flags, prot in modes[mode].items():
            entry = subject.fresh(level, pfn, prot)
            for new in range(flags & VM_SHARED, (flags & VM_SHARED) + 8):
                newprot = ops.pgprot_modify(prot, subject.prot(new))
                changed = modify(entry, newprot)
                if (changed ^ entry) & memory_type:
                    raise Violation(
                        f"{level}_modify({entry:#x}, {newprot:#x}) = {changed:#x} changes the memory type that "
                        f"{mode or 'a cached mapping'} has: {bits(changed & memory_type, entry & memory_type)}"
                    )


_LEAF = ("leaf:X",)

CHECKS = (
    Check(
        "protection-map",
        "a vma's first protection lets be read and written what mmap asked for, but no private page be written",
        protection_map,
        (*_LEAF, "X_write"),
        LEAF_LEVELS,
    ),
    Check(
        "shared-as-private",
        "shared mappings have the protections of private ones, but for what may be written: copy-on-write is the "
        "difference",
        shared_is_as_private,
    ),
    Check(
        "protection-execute",
        "the CPU may read and execute what mmap asked for, and nothing else",
        execution,
        (*_LEAF, "permissions"),
        LEAF_LEVELS,
    ),
    Check(
        "access-error",
        "an access that the vma's permissions forbid is refused before a fault, and no other",
        access_error,
    ),
    Check(
        "execute-only",
        "what may be executed alone can be read where a fault of a load is served, and nowhere else",
        execute_only,
        (*_LEAF, "permissions"),
        LEAF_LEVELS,
    ),
    Check(
        "decryption",
        "where memory is encrypted, so is that of every mapping, until pgprot_decrypted",
        decryption,
    ),
    Check(
        "cache-modes",
        "noncached is not cached, nor write-combining any longer where it was",
        noncached_differs,
        ("pgprot_noncached",),
    ),
    Check(
        "writecombine-uncached",
        "write-combining is not cached: where there is no such memory type, the headers make it noncached",
        writecombine_is_uncached,
        ("pgprot_noncached",),
    ),
    Check(
        "cache-keeps-permissions",
        "a cache mode changes no permission and no mark",
        permissions_survive,
        _LEAF,
        LEAF_LEVELS,
    ),
    Check(
        "modify-keeps-memory-type",
        "mprotect leaves a mapping of a device as uncached as it was",
        modify_keeps_the_memory_type,
        (*_LEAF, "X_modify"),
        LEAF_LEVELS,
    ),
)
