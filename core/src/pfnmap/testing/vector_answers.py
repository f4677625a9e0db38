"""What the rows of each helper of a vector file stand for, and what a linked kernel answers to their inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from pfnmap.contract.entry import LEVELS, Level
from pfnmap.errors import PfnmapError, Refused
from pfnmap.testing.vector_rows import Row, Rows
from pfnmap.vm_flags import VM_READ, VM_SHARED, VM_WRITE

if TYPE_CHECKING:
    from pfnmap.kernel import Kernel

__all__ = ["FORMS", "WIDTHS", "Wrong", "wrong_answers", "wrong_answers_to_arrays"]

Wrong: TypeAlias = "tuple[int, int | str]"
"""A row on which a kernel disagrees, by its position, and what it answers: an entry, or the text of what was raised."""

_PER_LEVEL = (
    *("pfn_X", "X_pfn", "X_pgprot", "X_special", "X_mkspecial", "X_devmap", "X_mkdevmap", "X_mkhuge", "X_present"),
    *("X_none", "X_leaf", "X_bad", "X_trans_huge", "X_write", "X_dirty", "X_young", "X_mkwrite", "X_mkwrite_novma"),
    *("X_wrprotect", "X_mkdirty", "X_mkclean", "X_mkyoung", "X_mkold", "X_modify", "X_access_permitted"),
    *("X_populate", "X_index", "composite_insert_pfn_X", "composite_write_upgrade_X"),
)
_LEVELLESS = ("pgprot_noncached", "pgprot_writecombine", "pgprot_device", "vm_get_page_prot")
FORMS: Final[Mapping[str, tuple[str, str]]] = {
    **{form.replace("X", level): (form, level) for form in _PER_LEVEL for level in LEVELS},
    **{form: (form, "") for form in _LEVELLESS},
}
"""Helper -> its form (with X for the level) and its level."""

_ENTRIES: Final = {"pfn_X": 2, "X_modify": 2, "composite_insert_pfn_X": 2, "vm_get_page_prot": 0}
"""How many of a form's inputs are entries, pgprots or pfns, elementwise in the ops; 1 where it is not listed."""

_NUMBERS: Final = {"X_access_permitted": 1, "composite_insert_pfn_X": 1, "vm_get_page_prot": 1}
"""How many inputs follow that are plain numbers (a write flag, vm_flags); 0 where it is not listed."""

WIDTHS: Final[Mapping[str, int]] = {
    helper: _ENTRIES.get(form, 1) + _NUMBERS.get(form, 0) + 1 for helper, (form, _) in FORMS.items()
}
"""Helper -> how many words a row of it has."""

_WRITABLE_VMA = VM_READ | VM_WRITE | VM_SHARED


def _function(kernel: Kernel, helper: str) -> Callable[..., Any]:
    """Return the function of a row's inputs that a helper stands for."""
    form, level = FORMS[helper]
    match form:
        case "X_index":
            return lambda address: kernel.geometry.index(cast("Level", level), address)
        case "X_mkwrite":
            return lambda entry: _mkwrite(kernel, level, entry)
        case "composite_insert_pfn_X":
            return lambda pfn, prot, write: _insert_pfn(kernel, level, pfn, prot, write)
        case "composite_write_upgrade_X":
            return lambda old: _write_upgrade(kernel, level, old)
    return cast("Callable[..., Any]", getattr(kernel.ops, helper, partial(_no_such_op, helper)))


def _no_such_op(helper: str, *inputs: Any) -> Any:
    raise Refused(helper, "no architecture of the model has such an op")


def _mkwrite(kernel: Kernel, level: str, entry: Any) -> Any:
    """X_mkwrite for a writable vma; that of a PUD takes no vma."""
    op = getattr(kernel.ops, f"{level}_mkwrite")
    return op(entry) if level == "pud" else op(entry, _WRITABLE_VMA)


def _insert_pfn(kernel: Kernel, level: str, pfn: Any, prot: Any, write: int) -> Any:
    """The chain of insert_pfn, insert_pfn_pmd and insert_pfn_pud (mm/memory.c, mm/huge_memory.c)."""
    ops = kernel.ops
    entry = getattr(ops, f"pfn_{level}")(pfn, prot)
    if level != "pte":
        entry = getattr(ops, f"{level}_mkhuge")(entry)
    entry = getattr(ops, f"{level}_mkspecial")(entry)
    if not write:
        return entry
    entry = getattr(ops, f"{level}_mkyoung")(getattr(ops, f"{level}_mkdirty")(entry))
    return _mkwrite(kernel, level, entry)


def _write_upgrade(kernel: Kernel, level: str, old: Any) -> Any:
    """The chain of a write fault on an entry that was inserted for reading."""
    ops = kernel.ops
    return _mkwrite(kernel, level, getattr(ops, f"{level}_mkdirty")(getattr(ops, f"{level}_mkyoung")(old)))


def _raised(error: Exception) -> str:
    return str(error) if isinstance(error, PfnmapError) else f"{type(error).__name__}: {error}"


def wrong_answers(kernel: Kernel, helper: str, rows: Rows) -> list[Wrong]:
    """Return the rows on which the kernel disagrees, one by one, in ints."""
    function = _function(kernel, helper)
    return [(n, got) for n, row in enumerate(rows) if (got := _answer(function, row[:-1])) != row[-1]]


def _answer(function: Callable[..., Any], inputs: tuple[int, ...]) -> int | str:
    try:
        answer = function(*inputs)
    except Exception as error:  # a plugin's op may raise anything; that is an answer, and a wrong one
        return _raised(error)
    return answer if type(answer) is int else f"{answer!r}, which is no int"


def wrong_answers_to_arrays(kernel: Kernel, helper: str, rows: Rows) -> list[Wrong]:
    """Return the rows on which the kernel disagrees where it is given arrays of entries, which it cannot write to;
    plain numbers stay so, rows are grouped by them."""
    form = FORMS[helper][0]
    entries = _ENTRIES.get(form, 1)
    if not entries:
        return wrong_answers(kernel, helper, rows)
    if not len(rows):
        return []
    function, words = _function(kernel, helper), rows.words
    if form not in _NUMBERS:
        return _wrong_in_arrays(function, words, entries, ())
    numbers = words[:, entries]
    found: list[Wrong] = []
    for number in set(numbers.tolist()):
        where = (numbers == number).nonzero()[0]
        some = words[where]
        some.flags.writeable = False
        found += [(int(where[n]), got) for n, got in _wrong_in_arrays(function, some, entries, (number,))]
    return sorted(found)


def _wrong_in_arrays(function: Callable[..., Any], words: Any, entries: int, plain: Row) -> list[Wrong]:
    import numpy as np

    size = len(words)
    try:
        answer = function(*words.T[:entries], *plain)
    except Exception as error:  # see _answer
        return [(n, _raised(error)) for n in range(size)]
    if not isinstance(answer, np.ndarray) or answer.dtype != np.uint64 or answer.shape != (size,):
        said = f"{type(answer).__name__} of {getattr(answer, 'dtype', 'no dtype')}, no uint64 array"
        return [(n, said) for n in range(size)]
    wrong = (answer != words[:, -1]).nonzero()[0].tolist()
    return list(zip(wrong, answer[wrong].tolist(), strict=True)) if wrong else []
