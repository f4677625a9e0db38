"""The JSON conventions of the commands."""

import json

import numpy as np
import pytest

from pfnmap.report.json import dumps, hexa, schema


def test_addresses_are_hexadecimal_strings_and_sizes_integers():
    document = {"schema": schema("plan"), "bar": {"phys": hexa(0x84000000000), "size": 1 << 37}}
    assert json.loads(dumps(document)) == {
        "schema": "pfnmap-plan/1",
        "bar": {"phys": "0x84000000000", "size": 137438953472},
    }


def test_entries_of_an_array_are_printed_like_integers():
    assert hexa(np.uint64(2**64 - 1)) == hexa(2**64 - 1) == "0xffffffffffffffff"
    assert hexa(0) == "0x0"


def test_key_order_is_kept():
    assert list(json.loads(dumps({"schema": "x", "b": 1, "a": 2}))) == ["schema", "b", "a"]


def test_what_has_no_json_form_is_refused():
    with pytest.raises(ValueError, match="negative"):
        hexa(-1)
    with pytest.raises(TypeError):
        dumps({"sizes": {1, 2}})
    with pytest.raises(ValueError, match="JSON"):
        dumps({"ratio": float("nan")})
