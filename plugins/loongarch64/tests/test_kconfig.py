"""The architecture's fragment, with the core's alone, against what the kernel's own conf derived."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pfnmap.kconfig import declared, fragment, resolve
from pfnmap.release import parse_release

PACKAGES = ("pfnmap", "pfnmap_loongarch64")
PATH = Path(__file__).parent / "data" / "kconfig" / "resolved.json.gz"
RECORDS: list[dict[str, Any]] = json.loads(gzip.decompress(PATH.read_bytes()))["records"]


@pytest.mark.parametrize("record", RECORDS, ids=[record["id"] for record in RECORDS])
def test_given_derives_what_conf_derived(record: dict[str, Any]):
    has, known = parse_release(record["release"]).has, declared(*PACKAGES)
    given = {symbol: value for symbol, value in record["given"].items() if symbol in known}
    derived = {symbol: value for symbol, value in record["derived"].items() if symbol in known}
    config = resolve([(package, fragment(package, has)) for package in PACKAGES], given)
    assert len(derived) >= 12
    assert {symbol: config.value(symbol) for symbol in derived} == derived
