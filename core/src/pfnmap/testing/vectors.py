"""Golden vectors: inputs and outputs of a kernel's own page-table helpers, and whether a linked kernel agrees.

A vector file (schema ``pfnmap-vectors/1``, JSON, plain or gzip) says which machine it is of, who defines each helper
(`defined`: arch, generic or absent), the geometry constants, and per helper rows of hex strings, the result last::

    vectors = read_vectors("x86_64-4k.json.gz")
    kernel = Kernel.link(**machine_of(vectors)._asdict())
    result = check_vectors(vectors, kernel)
    result.rows, result.agree, result.disagree[:1]

In scope is what `IN_SCOPE` names, at every level where the file's `defined` says arch or generic, all composites, and
the geometry constants, which count as the rows of a helper called ``constants``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pfnmap.contract.arch import Arch
from pfnmap.errors import BadInput
from pfnmap.host.bounded import MIB, read_json
from pfnmap.plugins import Registry, environment
from pfnmap.testing.vector_answers import FORMS, WIDTHS, Wrong, wrong_answers, wrong_answers_to_arrays
from pfnmap.testing.vector_rows import HEX, Rows, hex_number, rows_of

if TYPE_CHECKING:
    from pfnmap.kernel import Kernel

__all__ = [
    "IN_SCOPE",
    "SCHEMA",
    "Checked",
    "Disagreement",
    "Machine",
    "Vectors",
    "check_vectors",
    "machine_of",
    "parse_vectors",
    "read_vectors",
]

SCHEMA: Final = "pfnmap-vectors/1"
FILE_LIMIT: Final = 16 * MIB
SHOWN: Final = 20
"""Disagreements that a result lists."""

IN_SCOPE: Final = frozenset(FORMS)
"""Helpers in scope: composites always, the others where a file's `defined` says arch or generic."""

_CONSTANTS: Final = (
    *("PAGE_SHIFT", "PMD_SHIFT", "PUD_SHIFT", "P4D_SHIFT", "PGDIR_SHIFT", "PMD_ORDER", "PUD_ORDER"),
    *("PTRS_PER_PTE", "PTRS_PER_PMD", "PTRS_PER_PUD", "PTRS_PER_P4D", "PTRS_PER_PGD"),
)


class Machine(NamedTuple):
    """What `pfnmap.kernel.Kernel.link` needs to link the machine of a file."""

    arch: str
    release: str
    config: Mapping[str, str]
    cpu: Mapping[str, Any]


@dataclass(frozen=True)
class Vectors:
    """One parsed vector file. `rows`: helper -> rows (inputs, then the result), only of helpers in scope; `defined`:
    helper in scope -> arch, generic or absent; `out_of_scope`: helper with rows -> why they do not count; `trapped`:
    helper -> how many inputs have no row because the kernel's code trapped on them (BUG()); `physical_bits`:
    MAX_PHYSMEM_BITS, 0 where the file does not say; `bits`: named bits and what else the machine said of itself."""

    arch: str
    release: str
    config: Mapping[str, str]
    cpu: Mapping[str, Any]
    constants: Mapping[str, int]
    defined: Mapping[str, str]
    rows: Mapping[str, Rows]
    out_of_scope: Mapping[str, str]
    trapped: Mapping[str, int] = field(default_factory=dict)
    physical_bits: int = 0
    bits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Disagreement:
    """One row on which a kernel disagrees; `got` is an entry, or the text of what was raised."""

    helper: str
    inputs: tuple[int | str, ...]
    expected: int
    got: int | str

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON, numbers as hex strings."""
        return {
            "helper": self.helper,
            "inputs": [_shown(value) for value in self.inputs],
            "expected": _shown(self.expected),
            "got": _shown(self.got),
        }


@dataclass
class Checked:
    """What a comparison found: rows, how many agree, the first disagreements, and both counts per helper."""

    out_of_scope: Mapping[str, str]
    rows: int = 0
    agree: int = 0
    disagree: list[Disagreement] = field(default_factory=list)
    helpers: dict[str, dict[str, int]] = field(default_factory=dict)

    def count(self, helper: str, rows: Sequence[tuple[Any, ...]], wrong: Sequence[Wrong]) -> None:
        """Count all rows of a helper; `wrong`: those that disagree, in order."""
        counts = self.helpers.setdefault(helper, {"rows": 0, "agree": 0})
        for where, count in (("rows", len(rows)), ("agree", len(rows) - len(wrong))):
            counts[where] += count
            setattr(self, where, getattr(self, where) + count)
        for n, got in wrong[: max(SHOWN - len(self.disagree), 0)]:
            self.disagree.append(Disagreement(helper, rows[n][:-1], rows[n][-1], got))

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "rows": self.rows,
            "agree": self.agree,
            "disagree": [one.as_dict() for one in self.disagree],
            "helpers": self.helpers,
            "out_of_scope": dict(self.out_of_scope),
        }


def read_vectors(path: str | os.PathLike[str]) -> Vectors:
    """Read a vector file. Raises BadInput, naming the file and the place in it."""
    return parse_vectors(read_json(path, FILE_LIMIT), str(path))


def parse_vectors(document: Any, where: str = "vectors") -> Vectors:
    """Return the Vectors in a JSON document; `where` names it in errors (BadInput)."""
    top = _mapping(document, where)
    if top.get("schema") != SCHEMA:
        raise BadInput(f"{where}: schema", f"{top.get('schema')!r}, expected {SCHEMA!r}")
    machine = _mapping(top.get("machine"), f"{where}: machine")
    defined = _mapping(top.get("defined"), f"{where}: defined")
    all_rows = _mapping(top.get("vectors"), f"{where}: vectors")
    constants = _mapping(top.get("constants"), f"{where}: constants")
    config = _mapping(machine.get("config", {}), f"{where}: machine.config")
    out_of_scope = {name: reason for name in all_rows if (reason := _out_of_scope(name, defined))}
    listed = {name: rows for name, rows in all_rows.items() if name not in out_of_scope}
    return Vectors(
        arch=_text(top.get("arch"), f"{where}: arch"),
        release=_text(top.get("kernel"), f"{where}: kernel"),
        config={name: _text(value, f"{where}: machine.config.{name}") for name, value in config.items()},
        cpu=_mapping(machine.get("cpu", {}), f"{where}: machine.cpu"),
        constants={
            name: hex_number(constants[name], f"{where}: constants.{name}") for name in _CONSTANTS if name in constants
        },
        defined={name: _text(owner, f"{where}: defined.{name}") for name, owner in defined.items() if name in IN_SCOPE},
        rows=rows_of(listed, {name: WIDTHS[name] for name in listed}, where),
        out_of_scope=out_of_scope,
        physical_bits=hex_number(constants.get("MAX_PHYSMEM_BITS", "0x0"), f"{where}: constants.MAX_PHYSMEM_BITS"),
        bits={
            name: int(value, 16)
            for name, value in _mapping(top.get("bits", {}), f"{where}: bits").items()
            if isinstance(value, str) and HEX.fullmatch(value)
        },
        trapped=_counts(top.get("trapped_inputs_skipped", {}), f"{where}: trapped_inputs_skipped"),
    )


def machine_of(
    vectors: Vectors | Mapping[str, Any], registry: Registry | None = None, *, arch: type[Arch] | None = None
) -> Machine:
    """Return what the machine of a vector file (parsed, or its JSON document) has to be linked with.

    The architecture's plugin (`arch`, or the installed one of that name) is asked for its `cpu` keys: those that a file
    leaves out are off, except `nx` and `hw_access_dirty`, which are on; one that is no switch (a size, a mode) keeps
    the plugin's default. What a file tells of the machine only among its `bits` is taken from there
    (`Arch.vector_state`).
    """
    vectors = _parsed(vectors)
    plugin = arch or (registry or environment()).load("arch", vectors.arch)
    defaults = plugin.cpu_defaults
    told = {key: vectors.bits[name] for key, name in plugin.vector_state.items() if name in vectors.bits}
    switches = {key: key in ("nx", "hw_access_dirty") for key, value in defaults.items() if isinstance(value, bool)}
    return Machine(vectors.arch, vectors.release, vectors.config, {**switches, **told, **vectors.cpu})


def check_vectors(vectors: Vectors | Mapping[str, Any], kernel: Kernel, *, arrays: bool = False) -> Checked:
    """Compare a linked kernel with every row in scope of a vector file (parsed, or its JSON document).

    `arrays`: give the ops numpy.uint64 arrays of all rows of a helper at once; the answer has to be such an array. An
    op that raises disagrees with its row; what it raised is `got`.
    """
    vectors = _parsed(vectors)
    result = Checked(vectors.out_of_scope)
    constants = kernel.geometry.constants()
    named = list(vectors.constants.items())
    if named:
        result.count("constants", named, [(n, got) for n, (c, v) in enumerate(named) if (got := constants[c]) != v])
    wrong = wrong_answers_to_arrays if arrays else wrong_answers
    for helper, rows in vectors.rows.items():
        result.count(helper, rows, wrong(kernel, helper, rows))
    return result


# Scope and parsing


def _parsed(vectors: Vectors | Mapping[str, Any]) -> Vectors:
    return vectors if isinstance(vectors, Vectors) else parse_vectors(vectors)


def _out_of_scope(helper: str, defined: Mapping[str, Any]) -> str:
    """Return why a helper is out of scope, or "" if it is in scope."""
    if helper not in IN_SCOPE:
        return "not in scope"
    if helper.startswith("composite_"):
        return ""
    owner = defined.get(helper, "no owner in `defined`")
    return "" if owner in ("arch", "generic") else str(owner)


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(where, "expected an object")
    return value


def _counts(value: Any, where: str) -> Mapping[str, int]:
    counts = _mapping(value, where)
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool):
            raise BadInput(f"{where}.{name}", "expected a count")
    return counts


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise BadInput(where, "expected a string")
    return value


def _shown(value: int | str) -> str:
    return value if isinstance(value, str) else hex(value)
