"""pfnmap.testing.kconfig_records: a record that the fragment does not derive is found, and one without a symbol too."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pfnmap.errors import BadInput
from pfnmap.host.bounded import MIB, read_json
from pfnmap.testing.check import Violation
from pfnmap.testing.kconfig_records import record_checks
from pfnmap_sparc64 import Sparc64

RECORDS = Path(__file__).parents[1] / "plugins/sparc64/tests/data/kconfig/resolved.json.gz"


@pytest.fixture
def document() -> Any:
    return {"records": read_json(RECORDS, 4 * MIB)["records"][:1]}


def check(tmp_path: Path, document: Any) -> None:
    file = tmp_path / "resolved.json"
    file.write_text(json.dumps(document))
    (made,) = record_checks(Sparc64, [file])
    assert made.name == "kconfig-records-resolved"
    made.function(None)


def test_records_that_are_derived_pass(tmp_path: Path, document: Any):
    check(tmp_path, document)


def test_a_value_that_conf_did_not_derive_is_named(tmp_path: Path, document: Any):
    (record,) = document["records"]
    record["derived"]["PGTABLE_LEVELS"] = "3"
    with pytest.raises(
        Violation, match=re.escape(f"1 values differ: {record['id']}: PGTABLE_LEVELS is 4, conf derived 3")
    ):
        check(tmp_path, document)


def test_a_record_that_compares_nothing_is_no_agreement(tmp_path: Path, document: Any):
    document["records"][0]["derived"] = {"OF_NOBODY": "y"}
    with pytest.raises(Violation, match="no symbol of this record is declared"):
        check(tmp_path, document)


@pytest.mark.parametrize("broken", [{}, {"records": []}, []])
def test_a_file_without_records_is_refused(tmp_path: Path, broken: Any):
    with pytest.raises(BadInput, match="expected a list of records"):
        check(tmp_path, broken)
