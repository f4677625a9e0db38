"""The kernel's own type information (BTF), as types for drgn, which reads DWARF alone.

The format is that of Documentation/bpf/btf.rst: a header, types one after another, strings. A module's BTF is split:
its types and strings go on where the kernel's end. Nothing of it is trusted: what does not hold together is BadInput.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final, NamedTuple

from drgn import Object, Program, TypeEnumerator, TypeKind, TypeKindSet, TypeMember, TypeParameter

from pfnmap.errors import BadInput

__all__ = ["LIMIT", "MAGIC", "Btf", "TypeFinder"]

MAGIC: Final = 0xEB9F
LIMIT: Final = 64 << 20
"""Bytes of BTF that are read; a distribution's kernel has six million."""

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF = range(1, 9)
_VOLATILE, _CONST, _RESTRICT, _FUNC, _FUNC_PROTO, _VAR, _DATASEC, _FLOAT = range(9, 17)
_DECL_TAG, _TYPE_TAG, _ENUM64 = range(17, 20)
_TAIL: Final = {
    **dict.fromkeys((_PTR, _FWD, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _FUNC, _FLOAT, _TYPE_TAG), (0, 0)),
    **dict.fromkeys((_INT, _VAR, _DECL_TAG), (4, 0)),
    _ARRAY: (12, 0),
    **dict.fromkeys((_STRUCT, _UNION, _DATASEC, _ENUM64), (0, 12)),
    **dict.fromkeys((_ENUM, _FUNC_PROTO), (0, 8)),
}
"""Kind -> bytes behind a type's first twelve: once, and for each of its members."""
_DEPTH: Final = 64
"""How deep one type may name another before a struct or a pointer: nothing real is near that."""


class _Row(NamedTuple):
    name: int
    kind: int
    members: int
    flag: bool
    size: int
    """Bytes, or the id of the type that is named."""
    at: int
    """Where the tail begins."""


class Btf:
    """Types by id, from `first` on; `base`: the kernel's, for a module's."""

    def __init__(self, data: bytes, where: str, base: Btf | None = None) -> None:
        """Read a blob. Raises BadInput for one that does not hold together."""
        self.where = where
        self.base = base
        self.first = 1 if base is None else base.end
        try:
            magic, _, _, header, types, types_length, strings, strings_length = struct.unpack_from("<HBBIIIII", data)
        except struct.error:
            raise BadInput(where, "no BTF: shorter than its header") from None
        if magic != MAGIC:
            raise BadInput(where, f"no BTF: it begins with {magic:#06x}, not {MAGIC:#06x}")
        self.data = data[header + types : header + types + types_length]
        self.strings = data[header + strings : header + strings + strings_length]
        if len(self.data) < types_length or len(self.strings) < strings_length:
            raise BadInput(where, "BTF that ends before its types and strings")
        self.rows = list(self._rows())

    @property
    def end(self) -> int:
        """The id behind the last."""
        return self.first + len(self.rows)

    @property
    def strings_end(self) -> int:
        """Where a module's strings go on."""
        return len(self.strings) + (self.base.strings_end if self.base else 0)

    def _rows(self) -> Iterator[_Row]:
        at = 0
        try:
            while at < len(self.data):
                name, info, size = struct.unpack_from("<III", self.data, at)
                kind, members = info >> 24 & 0x1F, info & 0xFFFF
                once, each = _TAIL[kind]
                yield _Row(name, kind, members, bool(info >> 31), size, at + 12)
                at += 12 + once + each * members
                if at > len(self.data):
                    raise BadInput(self.where, "BTF whose last type ends behind all types")
        except (struct.error, KeyError):
            raise BadInput(self.where, f"BTF that cannot be read at byte {at} of its types") from None

    def row(self, number: int) -> tuple[Btf, _Row]:
        """Return a type and whose it is."""
        if number < self.first and self.base is not None:
            return self.base.row(number)
        if not self.first <= number < self.end:
            raise BadInput(self.where, f"BTF names type {number}, and has {self.end - 1}")
        return self, self.rows[number - self.first]

    def string(self, offset: int) -> str:
        """Return a name; "" for none."""
        if self.base is not None and offset < self.base.strings_end:
            return self.base.string(offset)
        start = offset - (self.base.strings_end if self.base else 0)
        if not 0 <= start < len(self.strings):
            raise BadInput(self.where, f"BTF names string {offset}, beyond its strings")
        return self.strings[start : self.strings.find(b"\0", start)].decode("utf-8", "replace")

    @cached_property
    def by_name(self) -> dict[tuple[int, str], int]:
        """Kind and name -> id, of this blob alone; the first of several counts."""
        found: dict[tuple[int, str], int] = {}
        for number, row in enumerate(self.rows, self.first):
            if row.name and row.kind in _KINDS:
                found.setdefault((row.kind, self.string(row.name)), number)
        return found


_KINDS: Final = {
    _INT: TypeKind.INT,
    _STRUCT: TypeKind.STRUCT,
    _UNION: TypeKind.UNION,
    _ENUM: TypeKind.ENUM,
    _ENUM64: TypeKind.ENUM,
    _TYPEDEF: TypeKind.TYPEDEF,
    _FLOAT: TypeKind.FLOAT,
}


class TypeFinder:
    """Finds types for a program: in the kernel's BTF, and in its modules'."""

    def __init__(self, program: Program, blobs: list[Btf]) -> None:
        self.program = program
        self.blobs = blobs
        self._made: dict[tuple[int, int], Any] = {}

    def __call__(self, program: Program, kinds: TypeKindSet, name: str, filename: str | None) -> Any:
        """Return a type by its kinds and name, None for one that there is not (drgn's interface of a type finder)."""
        for blob in self.blobs:
            for kind, meant in _KINDS.items():
                if meant in kinds and (number := blob.by_name.get((kind, name))) is not None:
                    return self.type(blob, number)
        if TypeKind.INT in kinds and (same := _SPELLED.get(name)):
            return self(program, kinds, same, filename)
        return None

    def enums(self) -> Iterator[Any]:
        """Yield all enumerations."""
        for blob in self.blobs:
            for number, row in enumerate(blob.rows, blob.first):
                if row.kind in (_ENUM, _ENUM64):
                    yield self.type(blob, number)

    def type(self, blob: Btf, number: int, depth: int = 0) -> Any:
        """Return a type by its id."""
        if number == 0:
            return self.program.void_type()
        if depth > _DEPTH:
            raise BadInput(blob.where, "BTF whose types go round in a circle")
        owner, row = blob.row(number)
        key = id(owner), number
        if key not in self._made:
            self._made[key] = self._make(owner, row, depth)
        return self._made[key]

    def _make(self, blob: Btf, row: _Row, depth: int) -> Any:
        program, name = self.program, blob.string(row.name)

        def below() -> Any:
            return self.type(blob, row.size, depth + 1)

        if row.kind == _INT:
            (info,) = struct.unpack_from("<I", blob.data, row.at)
            if info >> 24 & 4:
                return program.bool_type(name, row.size)
            return program.int_type(name, row.size, bool(info >> 24 & 1))
        if row.kind == _PTR:
            return program.pointer_type(below())
        if row.kind == _ARRAY:
            element, _, count = struct.unpack_from("<III", blob.data, row.at)
            return program.array_type(self.type(blob, element, depth + 1), count)
        if row.kind in (_STRUCT, _UNION):
            make = program.struct_type if row.kind == _STRUCT else program.union_type
            return make(name or None, row.size, tuple(self._members(blob, row)))
        if row.kind in (_ENUM, _ENUM64):
            return self._enum(blob, row, name)
        if row.kind == _FWD:
            make = program.union_type if row.flag else program.struct_type
            return make(name or None)
        if row.kind == _TYPEDEF:
            return program.typedef_type(name, below())
        if row.kind in (_CONST, _VOLATILE):
            from drgn import Qualifiers

            return below().qualified(Qualifiers.CONST if row.kind == _CONST else Qualifiers.VOLATILE)
        if row.kind in (_RESTRICT, _TYPE_TAG, _FUNC):
            return below()
        if row.kind == _FLOAT:
            return program.float_type(name, row.size)
        if row.kind == _FUNC_PROTO:
            return self._function(blob, row, depth)
        raise BadInput(blob.where, f"BTF uses a type of kind {row.kind} where none can be")

    def _members(self, blob: Btf, row: _Row) -> Iterator[TypeMember]:
        for n in range(row.members):
            name, number, offset = struct.unpack_from("<III", blob.data, row.at + 12 * n)
            bits = offset >> 24 if row.flag else 0
            yield TypeMember(
                self._lazily(blob, number, bits), blob.string(name) or None, offset & 0xFFFFFF if row.flag else offset
            )

    def _lazily(self, blob: Btf, number: int, bits: int) -> Any:
        def make() -> Object:
            kind = self.type(blob, number)
            if bits:
                return Object(self.program, kind, bit_field_size=bits)
            return Object(self.program, kind)

        return make

    def _enum(self, blob: Btf, row: _Row, name: str) -> Any:
        wide, values = row.kind == _ENUM64, []
        for n in range(row.members):
            if wide:
                at, low, high = struct.unpack_from("<III", blob.data, row.at + 12 * n)
                value = low | high << 32
                value -= (value >> 63) << 64 if row.flag else 0
            else:
                at, value = struct.unpack_from("<Ii" if row.flag else "<II", blob.data, row.at + 8 * n)
            values.append(TypeEnumerator(blob.string(at), value))
        size = row.size if row.size in (1, 2, 4, 8) else 4
        return self.program.enum_type(name or None, self.program.int_type("int", size, row.flag), tuple(values))

    def _function(self, blob: Btf, row: _Row, depth: int) -> Any:
        pairs = [struct.unpack_from("<II", blob.data, row.at + 8 * n) for n in range(row.members)]
        variadic = bool(pairs) and pairs[-1] == (0, 0)
        parameters = tuple(
            TypeParameter(self._lazily(blob, number, 0), blob.string(name) or None)
            for name, number in (pairs[:-1] if variadic else pairs)
        )
        return self.program.function_type(self.type(blob, row.size, depth + 1), parameters, variadic)


_SPELLED: Final = {
    "long": "long int",
    "unsigned long": "long unsigned int",
    "long long": "long long int",
    "unsigned long long": "long long unsigned int",
    "short": "short int",
    "unsigned short": "short unsigned int",
}
"""How drgn calls integers -> how compilers do in BTF."""
