"""BTF as types for drgn: blobs made by hand, by the format's own documentation, whole and damaged."""

from __future__ import annotations

import struct

import pytest
from drgn import Architecture, FaultError, Object, Platform, Program
from hypothesis import given
from hypothesis import strategies as st

from pfnmap.errors import BadInput
from pfnmap_tables.btf import Btf, TypeFinder

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST = range(1, 11)
FUNC_PROTO, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = 13, 16, 17, 18, 19


class Writer:
    """Writes a blob; each method returns the id of the type that it adds."""

    def __init__(self, first=1, strings=1):
        self.types, self.strings, self.next, self.base = b"", b"\0" if strings == 1 else b"", first, strings - 1

    def name(self, text):
        at = len(self.strings) + self.base
        self.strings += text.encode() + b"\0"
        return at

    def add(self, name, kind, size, tail=b"", members=0, flag=False):
        at = self.name(name) if name else 0
        self.types += struct.pack("<III", at, kind << 24 | members | flag << 31, size) + tail
        self.next += 1
        return self.next - 1

    def integer(self, name, size, signed=False):
        return self.add(name, INT, size, struct.pack("<I", signed << 24 | size * 8))

    def struct(self, name, size, *members, kind=STRUCT, flag=False):
        tail = b"".join(struct.pack("<III", self.name(m) if m else 0, t, o) for m, t, o in members)
        return self.add(name, kind, size, tail, len(members), flag)

    def blob(self):
        head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings))
        return head + self.types + self.strings


def program(*blobs):
    made = Program(Platform(Architecture.X86_64))
    made.register_type_finder("btf", TypeFinder(made, list(blobs)), enable_index=0)
    return made


def sample():
    w = Writer()
    u64, u8 = w.integer("long unsigned int", 8), w.integer("unsigned char", 1)
    node = w.next + 2  # struct list_node names itself
    pointer = w.add("", PTR, node)
    array = w.add("", ARRAY, 0, struct.pack("<III", u8, u64, 4))
    w.struct("list_node", 24, ("next", pointer, 0), ("value", u64, 64), ("tag", array, 128))
    w.add("node_t", TYPEDEF, w.add("", CONST, node))
    flags = (("low", u64, 3 << 24 | 0), ("high", u64, 5 << 24 | 3))
    w.struct("bits", 8, *flags, flag=True)
    w.add("kind", ENUM, 4, struct.pack("<Ii", w.name("NEGATIVE"), -1) + struct.pack("<Ii", w.name("TWO"), 2), 2, True)
    w.add("wide", ENUM64, 8, struct.pack("<III", w.name("BIG"), 1, 1), 1)
    w.struct("either", 8, ("whole", u64, 0), ("bytes", array, 0), kind=UNION)
    w.add("opaque", FWD, 0)
    w.add("", PTR, w.add("", FUNC_PROTO, u64, struct.pack("<II", 0, u64) + struct.pack("<II", 0, 0), 2))
    return w


MEMORY = struct.pack("<QQ4s4x", 0x1000, 42, b"abcd") + struct.pack("<Q", 0b10101_011)


def test_members_are_read_from_memory():
    made = program(Btf(sample().blob(), "x"))
    made.add_memory_segment(
        0x1000, len(MEMORY), lambda address, count, offset, physical: MEMORY[offset : offset + count]
    )
    node = Object(made, "struct list_node", address=0x1000)
    assert node.value.value_() == 42
    assert node.next.next.value.value_() == 42
    assert [one.value_() for one in node.tag] == list(b"abcd")
    assert Object(made, "node_t", address=0x1000).value.value_() == 42
    bits = Object(made, "struct bits", address=0x1018)
    assert (bits.low.value_(), bits.high.value_()) == (0b011, 0b10101)
    with pytest.raises(FaultError):
        Object(made, "struct list_node", address=0x5000).value.value_()


def test_enumerations_have_their_values():
    made = program(Btf(sample().blob(), "x"))
    assert [(one.name, one.value) for one in made.type("enum kind").enumerators] == [("NEGATIVE", -1), ("TWO", 2)]
    assert made.type("enum wide").enumerators[0].value == (1 << 32) + 1


def test_integers_are_found_by_either_spelling_and_what_is_not_there_is_not():
    made = program(Btf(sample().blob(), "x"))
    assert made.type("unsigned long").size == 8
    assert made.type("union either").members[1].name == "bytes"
    with pytest.raises(LookupError):
        made.type("struct nothing")


def test_module_s_types_go_on_where_the_kernel_s_end():
    kernel = sample()
    module = Writer(kernel.next, len(kernel.strings) + 1)
    module.struct("vdev", 8, ("first", module.add("", PTR, 5), 0))
    base = Btf(kernel.blob(), "kernel")
    vdev = program(base, Btf(module.blob(), "module", base)).type("struct vdev")
    assert vdev.members[0].type.type.tag == "list_node"


@pytest.mark.parametrize("content", [b"", b"BTF", bytes(24), sample().blob()[:-1], sample().blob()[:60]])
def test_what_is_no_btf_or_is_cut_is_said(content):
    with pytest.raises(BadInput, match="BTF"):
        Btf(content, "x")


def test_types_that_go_round_in_a_circle_end():
    w = Writer()
    w.add("a", TYPEDEF, 2)
    w.add("b", TYPEDEF, 1)
    with pytest.raises(BadInput, match="circle"):
        program(Btf(w.blob(), "x")).type("a")


@given(st.data())
def test_damage_is_said_or_harmless(data):
    content = bytearray(sample().blob())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        made = program(Btf(bytes(content), "x"))
        for name in ("struct list_node", "node_t", "struct bits", "enum kind", "union either"):
            try:
                for member in made.type(name).members or ():
                    str(member.type)
            except (LookupError, TypeError, AttributeError):
                continue
    except (BadInput, ValueError, OverflowError):
        return
