"""What the documents of the commands are written with."""

import json

import pytest

from pfnmap.report.json import dumps, schema


def test_the_schema_is_named_after_the_command():
    assert schema("plan") == "pfnmap-plan/1"


def test_the_order_of_keys_is_kept_and_all_is_ascii():
    text = dumps({"schema": "x", "b": 1, "a": "\u00e9"})
    assert text.isascii()
    assert list(json.loads(text).items()) == [("schema", "x"), ("b", 1), ("a", "\u00e9")]


def test_what_has_no_json_form_is_refused():
    with pytest.raises(TypeError):
        dumps({"sizes": {1, 2}})
    with pytest.raises(ValueError, match="JSON"):
        dumps({"ratio": float("nan")})
