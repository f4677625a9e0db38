"""pfnmap.testing.vectors: which rows count, what an op is called with, and what a wrong answer looks like.

The kernel here is a stand-in of a few ops; the plugins hold theirs to real kernels' rows.
"""

from __future__ import annotations

import copy
import gzip
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from pfnmap.contract.geometry import Geometry, WalkLevel
from pfnmap.errors import BadInput, Refused
from pfnmap.testing.vectors import check_vectors, machine_of, parse_vectors, read_vectors
from pfnmap.vm_flags import VM_WRITE

GEOMETRY = Geometry(
    PAGE_SHIFT=12,
    PMD_SHIFT=21,
    PUD_SHIFT=30,
    P4D_SHIFT=39,
    PGDIR_SHIFT=39,
    PTRS_PER_PTE=512,
    PTRS_PER_PMD=512,
    PTRS_PER_PUD=512,
    PTRS_PER_P4D=1,
    PTRS_PER_PGD=512,
    walk=(WalkLevel("pgd", 39, 512),),
    task_size=1 << 47,
)

DOCUMENT: dict[str, Any] = {
    "schema": "pfnmap-vectors/1",
    "kernel": "6.12.117",
    "arch": "toy",
    "machine": {"config": {"TRANSPARENT_HUGEPAGE": "y"}, "cpu": {"size": 3}},
    "constants": {"PAGE_SHIFT": "0xc", "PMD_ORDER": "0x9", "VM_READ": "0x1", "protection_map": ["0x1"]},
    "defined": {
        **dict.fromkeys(("pte_pfn", "pfn_pte", "pte_modify", "pte_mkwrite", "pte_exec"), "arch"),
        **dict.fromkeys(("pmd_populate", "pud_mkwrite", "vm_get_page_prot"), "arch"),
        **dict.fromkeys(("pte_access_permitted", "pmd_index"), "generic"),
        "pte_devmap": "absent",
    },
    "vectors": {
        "pte_pfn": [["0x3005", "0x3"]],
        "pfn_pte": [["0x3", "0x5", "0x3005"]],
        "pte_modify": [["0x3005", "0x7", "0x3007"]],
        "pte_access_permitted": [["0x1", "0x0", "0x1"], ["0x1", "0x1", "0x0"], ["0x3", "0x1", "0x1"]],
        "pte_mkwrite": [["0x1", "0x3"]],
        "pud_mkwrite": [["0x1", "0x3"]],
        "pmd_index": [["0x600000", "0x3"]],
        "pmd_populate": [["0x1000", "0x1067"]],
        "vm_get_page_prot": [["0x3", "0x25"]],
        "composite_insert_pfn_pmd": [
            ["0x200", "0x5", "0x0", "0x200285"],
            ["0x200", "0x5", "0x1", "0x2002e7"],
        ],
        "composite_write_upgrade_pmd": [["0x200285", "0x2002e7"]],
        "pte_devmap": [["0x0", "0x0"]],
        "pte_exec": [["0x0", "0x1"]],
        "pud_leaf": [["0x80", "0x1"]],
    },
}
ROWS = 2 + 14
"""Two constants, and the rows above but for the last three helpers."""


def _writable(entry: Any, vm_flags: int) -> Any:
    assert vm_flags & VM_WRITE
    return entry | 2


def _kernel(**other: Any) -> Any:
    ops = {
        "pte_pfn": lambda pte: pte >> 12,
        "pfn_pte": lambda pfn, prot: pfn << 12 | prot,
        "pte_modify": lambda pte, prot: (pte & 0xFFFFFFFFFFFFF000) | prot,
        "pte_access_permitted": lambda pte, write: (pte & 1) & (pte >> 1 | (1 - write)),
        "pte_mkwrite": _writable,
        "pud_mkwrite": lambda pud: pud | 2,
        "pmd_populate": lambda pa: pa | 0x67,
        "vm_get_page_prot": lambda vm_flags: 0x25,
        "pfn_pmd": lambda pfn, prot: pfn << 12 | prot,
        "pmd_mkhuge": lambda pmd: pmd | 0x80,
        "pmd_mkspecial": lambda pmd: pmd | 0x200,
        "pmd_mkdirty": lambda pmd: pmd | 0x40,
        "pmd_mkyoung": lambda pmd: pmd | 0x20,
        "pmd_mkwrite": _writable,
    }
    return SimpleNamespace(ops=SimpleNamespace(**{**ops, **other}), geometry=GEOMETRY)


@pytest.fixture(params=[False, True], ids=["ints", "arrays"])
def arrays(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_right_kernel_agrees_with_every_row_in_scope(arrays):
    result = check_vectors(DOCUMENT, _kernel(), arrays=arrays)
    assert result.disagree == []
    assert (result.rows, result.agree) == (ROWS, ROWS)
    assert result.helpers["constants"] == {"rows": 2, "agree": 2}
    assert result.helpers["pte_access_permitted"] == {"rows": 3, "agree": 3}


def test_scope_is_what_the_file_defines_at_that_level(arrays):
    result = check_vectors(DOCUMENT, _kernel(), arrays=arrays)
    assert result.out_of_scope == {
        "pte_devmap": "absent",
        "pte_exec": "not in scope",
        "pud_leaf": "no owner in `defined`",
    }
    assert not result.out_of_scope.keys() & result.helpers.keys()


def test_a_wrong_op_disagrees_with_inputs_and_both_values(arrays):
    result = check_vectors(DOCUMENT, _kernel(pte_modify=lambda pte, prot: pte), arrays=arrays)
    assert result.agree == ROWS - 1
    assert [one.as_dict() for one in result.disagree] == [
        {"helper": "pte_modify", "inputs": ["0x3005", "0x7"], "expected": "0x3007", "got": "0x3005"}
    ]


def test_an_op_that_raises_disagrees_and_is_named(arrays):
    def boom(pte):
        raise ZeroDivisionError("boom")

    def refused(pud):
        raise Refused("pud_mkwrite", "absent here")

    result = check_vectors(DOCUMENT, _kernel(pte_pfn=boom, pud_mkwrite=refused), arrays=arrays)
    got = {one.helper: one.got for one in result.disagree}
    assert got == {"pte_pfn": "ZeroDivisionError: boom", "pud_mkwrite": "pud_mkwrite: absent here"}


def test_an_op_that_is_missing_disagrees(arrays):
    kernel = _kernel()
    del kernel.ops.pmd_mkhuge
    result = check_vectors(DOCUMENT, kernel, arrays=arrays)
    assert {one.helper for one in result.disagree} == {"composite_insert_pfn_pmd"}


@pytest.mark.parametrize("wrong", [True, 3.0, None, "0x3"])
def test_an_int_is_the_only_answer_to_ints(wrong):
    result = check_vectors(DOCUMENT, _kernel(pte_pfn=lambda pte: wrong))
    assert [one.helper for one in result.disagree] == ["pte_pfn"]


@pytest.mark.parametrize(
    "wrong", [lambda pte: 3, lambda pte: (pte >> 12) == 3, lambda pte: (pte >> 12).astype("int64")]
)
def test_a_uint64_array_is_the_only_answer_to_arrays(wrong):
    result = check_vectors(DOCUMENT, _kernel(pte_pfn=wrong), arrays=True)
    assert "no uint64 array" in str(result.disagree[0].got)


def test_an_op_must_not_write_into_its_array():
    def in_place(entry, vm_flags):
        entry |= 2
        return entry

    result = check_vectors(DOCUMENT, _kernel(pte_mkwrite=in_place), arrays=True)
    assert [one.got for one in result.disagree] == ["ValueError: output array is read-only"]


def test_a_helper_in_scope_that_is_no_op_disagrees_and_is_named():
    document = copy.deepcopy(DOCUMENT)
    document["defined"]["p4d_trans_huge"] = "arch"
    document["vectors"]["p4d_trans_huge"] = [["0x0", "0x0"]]
    for arrays in (False, True):
        [one] = check_vectors(document, _kernel(), arrays=arrays).disagree
        assert (one.helper, str(one.got)[:14]) == ("p4d_trans_huge", "p4d_trans_huge")


def test_only_the_first_disagreements_are_listed_and_all_are_counted():
    document = copy.deepcopy(DOCUMENT)
    document["vectors"]["pte_pfn"] = [[hex(pfn << 12), hex(pfn)] for pfn in range(100)]
    result = check_vectors(document, _kernel(pte_pfn=lambda pte: 1 << 60))
    assert result.helpers["pte_pfn"] == {"rows": 100, "agree": 0}
    assert len(result.disagree) == 20


def test_a_wrong_constant_disagrees():
    document = copy.deepcopy(DOCUMENT)
    document["constants"]["PMD_ORDER"] = "0xb"
    [one] = check_vectors(document, _kernel()).disagree
    assert (one.helper, one.inputs, one.expected, one.got) == ("constants", ("PMD_ORDER",), 11, 9)


def test_the_machine_of_a_file_has_the_switches_off_that_it_leaves_out():
    toy = SimpleNamespace(
        cpu_defaults={"size": 1, "mode": "big", "fast": True, "nx": False, "hw_access_dirty": True}, vector_state={}
    )
    machine = machine_of(DOCUMENT, SimpleNamespace(load=lambda kind, name: toy))
    assert machine._asdict() == {
        "arch": "toy",
        "release": "6.12.117",
        "config": {"TRANSPARENT_HUGEPAGE": "y"},
        "cpu": {"size": 3, "fast": False, "nx": True, "hw_access_dirty": True},
    }


def _changed(*path: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "file: expected an object"),
        (_changed("schema", value="pfnmap-recording/1"), "file: schema: 'pfnmap-recording/1'"),
        (_changed("arch", value=7), "file: arch: expected a string"),
        (_changed("kernel", value=None), "file: kernel: expected a string"),
        (_changed("machine", value=None), "file: machine: expected an object"),
        (_changed("machine", "config", value={"A": 1}), "file: machine.config.A: expected a string"),
        (_changed("machine", "cpu", value=[]), "file: machine.cpu: expected an object"),
        (_changed("vectors", value=3), "file: vectors: expected an object"),
        (_changed("vectors", "pte_pfn", value={}), "file: pte_pfn: expected a list of rows"),
        (_changed("vectors", "pte_pfn", value=[["0x1", "0x1"], ["0x1"]]), "file: pte_pfn row 1: expected a list of 2"),
        (_changed("vectors", "pte_pfn", value=[["0x1", 1]]), "file: pte_pfn row 0: 1 is not a hex string"),
        (_changed("vectors", "pte_pfn", value=[["0x1", "0x" + "f" * 17]]), "is not a hex string of at most 64 bits"),
        (_changed("constants", "PAGE_SHIFT", value="twelve"), "file: constants.PAGE_SHIFT: 'twelve' is not a hex"),
    ],
)
def test_a_malformed_file_is_named_with_the_place(document, message):
    with pytest.raises(BadInput) as caught:
        parse_vectors(document, "file")
    assert message in str(caught.value)


def test_a_file_is_read_plain_or_compressed(tmp_path):
    plain, packed = tmp_path / "v.json", tmp_path / "v.json.gz"
    plain.write_text(json.dumps(DOCUMENT))
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_vectors(plain) == read_vectors(packed) == parse_vectors(DOCUMENT)
    with pytest.raises(BadInput, match="no such file"):
        read_vectors(tmp_path / "none")


def test_numpy_is_imported_only_for_arrays():
    code = "import sys, pfnmap.testing.vectors; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
