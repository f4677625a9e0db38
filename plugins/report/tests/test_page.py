"""The page: what it says is what the document says, nothing of it is markup, and it needs nothing else."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfnmap.errors import BadInput
from pfnmap_report.document import checked, read_document
from pfnmap_report.page import page

DATA = Path(__file__).parent / "data"
NAMES = ["plan", "against", "run", "host", "log", "verify"]
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\x1b[31m&amp;</style>"


def document(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return read


class Reader(HTMLParser):
    """The elements of a page with their attributes, and its text without what is in style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in = tag

    def handle_data(self, data: str) -> None:
        if self._in not in ("style", "script"):
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._in = ""


def stretches(text: str) -> list[str]:
    return [e["data-why"] or "" for _, e in Reader(text).elements if "data-why" in e]


@pytest.mark.parametrize("name", NAMES)
def test_a_page_loads_nothing_from_elsewhere(name: str):
    text = page(document(name))
    assert not re.search(r"https?://|@import|url\(", text.replace("http://www.w3.org/", ""))
    loading = {"img", "link", "iframe", "object", "embed"}
    assert {tag for tag, _ in Reader(text).elements}.isdisjoint(loading)
    assert all("src" not in attributes for _, attributes in Reader(text).elements)


def test_each_run_stands_in_the_picture_with_its_count_and_reason():
    plan = document("plan")
    said = stretches(page(plan))
    for row in plan["mappings"]:
        for run in row["runs"]:
            words = f"{run['count']:,} x "
            assert any(one.startswith(words) and f"VA {run['va']}" in one for one in said), run
    assert any("not 1G: the 1G-aligned block" in one for one in said)


def test_two_sides_stand_side_by_side_and_are_marked_where_they_differ():
    against = document("against")
    reader = Reader(page(against))
    classes = [attributes.get("class") for _, attributes in reader.elements]
    assert classes.count("side") == 2
    assert classes.count("differs") == 1
    same = against | {"against": {"kernel": against["kernel"], "mappings": against["mappings"]}}
    classes = [attributes.get("class") for _, attributes in Reader(page(same)).elements]
    assert (classes.count("differs"), classes.count("same")) == (0, 1)


def test_a_kernel_that_both_sides_have_stands_once():
    against = document("against")
    other = against["against"] | {"kernel": against["kernel"] | {"release": "6.1"}}
    same = against["against"] | {"kernel": against["kernel"]}
    for side, kernels in ((other, 2), (same, 1)):
        reader = Reader(page(against | {"against": side}))
        assert [attributes.get("class") for _, attributes in reader.elements].count("kernel") == kernels


def test_what_hangs_on_an_unknown_change_is_said_both_ways():
    plan = document("plan")
    (first, *rest), unchanged = plan["mappings"], [dict(row) for row in plan["mappings"]]
    yes = [first | {"counts": {"pud": 7, "pmd": 0, "pte": 0}, "driver_calls": 1}, *rest]
    unknown = {
        "change": "a-change",
        "given": ["another"],
        "if_yes": {"mappings": yes},
        "if_no": {"mappings": unchanged},
    }
    text = Reader(page(plan | {"undetermined": [unknown]})).text
    assert "whether this kernel has a-change (with another):" in text
    assert text.count("with it 7 x 1G, 1 fault, ") == text.count("with it ") == 1


def test_each_step_of_a_run_shows_its_result_faults_and_tables_and_the_oops_where_it_happens():
    run = document("run")
    steps = re.findall(r'<section class="step".*?</section>', page(run), re.DOTALL)
    assert len(steps) == len(run["steps"])
    oopses = [number for number, step in enumerate(steps) if "oops function=_raw_spin_lock" in step]
    assert oopses == [number for number, step in enumerate(run["steps"]) if step["result"] == "OOPS"]
    assert "0x80000840400002f7" in steps[1]
    assert "NOPAGE" in steps[1]


def hostile(value: Any) -> Any:
    """A document with markup added to every string that is no number and no word of the schema."""
    if isinstance(value, dict):
        kept = {"schema", "level", "va", "phys", "op", "page_size"}
        return {key: one if key in kept else hostile(one) for key, one in value.items()}
    if isinstance(value, list):
        return [hostile(one) for one in value]
    return HOSTILE + value if isinstance(value, str) else value


@pytest.mark.parametrize("name", NAMES)
def test_markup_in_a_document_is_text_on_the_page(name: str):
    before, after = Reader(page(document(name))), Reader(page(hostile(document(name))))
    assert {tag for tag, _ in after.elements} == {tag for tag, _ in before.elements}
    assert [tag for tag, _ in after.elements].count("script") == 1
    assert not any(key.startswith("on") for _, attributes in after.elements for key in attributes)
    assert "<script>alert(1)</script>" in after.text
    assert "\x1b" not in after.text


def test_eight_devices_fit_into_half_a_megabyte():
    plan = document("plan")
    rows = []
    for number in range(8):
        for bar, row in enumerate([*plan["mappings"], plan["mappings"][1]]):
            rows.append({**copy.deepcopy(row), "device": f"0000:{number:02x}:00.0", "bar": bar})
    assert len(page(plan | {"mappings": rows}).encode()) < 500_000


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ([], "no answer of pfnmap"),
        ({"schema": 1}, "no answer of pfnmap"),
        ({"schema": "pfnmap-caps/1"}, "cannot be drawn"),
        ({"schema": "pfnmap-plan/2", "mappings": []}, "cannot be drawn"),
        ({"schema": "pfnmap-plan/1"}, "without 'kernel'"),
    ],
)
def test_another_document_is_refused_in_one_line(given_: Any, said: str):
    with pytest.raises(BadInput, match=said) as refused:
        checked(given_, "a.json")
    assert str(refused.value).startswith("a.json: ")


def test_a_file_that_is_no_document_is_refused(tmp_path: Path):
    for content in (b"", b"{", b"\x00\x01", b"[" * 100_000):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(BadInput, match="x"):
            read_document(str(tmp_path / "x"))


@given(st.data())
def test_a_document_with_a_part_torn_out_is_drawn_or_refused(data: st.DataObject):
    whole = document(data.draw(st.sampled_from(NAMES)))
    at: Any = whole
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if isinstance(at[key], (dict, list)) and data.draw(st.booleans()):
            at = at[key]
            continue
        at[key] = data.draw(st.sampled_from([None, 0, -1, "", "x", [], {}]))
        break
    try:
        text = page(checked(whole, "x"))
    except (ArithmeticError, AttributeError, BadInput, IndexError, KeyError, TypeError, ValueError):
        return  # what the command makes one line of
    assert text.endswith("</html>\n")
