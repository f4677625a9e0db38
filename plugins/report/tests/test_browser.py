"""The page in a real browser: hover, focus, the slider, print, a hostile name, a phone's width, accessibility, speed.

Debian's chromium is driven by playwright (extra ``browser``); without either the tests are skipped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pfnmap_report.page import page as made

DATA = Path(__file__).parent / "data"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pfnmap-report[browser]")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Open a document's page from disk; no request may leave the file and nothing may be said on the console."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    said: list[str] = []

    def open_page(document: dict[str, Any]) -> Any:
        file = tmp_path / "page.html"
        file.write_text(made(document), encoding="utf-8")
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: None if request.url == file.as_uri() else said.append(request.url))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.goto(file.as_uri())
        return page

    yield open_page
    context.close()
    assert said == []


def document(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return read


def test_a_stretch_says_why_it_is_no_larger_on_hover_and_on_focus(opened: Open):
    page = opened(document("plan"))
    pmd = page.locator(".map .stretch", has=page.locator(".pmd")).first
    why = page.locator(".why").nth(1)
    pmd.hover()
    hovered = why.text_content()
    assert hovered.startswith("511 x 2M")
    assert "not 1G: the 1G-aligned block" in hovered
    pmd.focus()
    page.keyboard.press("Tab")
    assert why.text_content().startswith("3 x 1G")


def test_the_figures_of_the_page_are_those_of_the_document(opened: Open):
    plan = document("plan")
    page = opened(plan)
    rows = page.eval_on_selector_all("tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))")
    assert [(row[1], row[3], row[5], row[6]) for row in rows] == [
        (
            one["va"],
            f"{one['driver_calls']:,}",
            f"{one['dma_map']['cold']['walks']:,}",
            f"{one['dma_map']['warm']['walks']:,}",
        )
        for one in plan["mappings"]
    ]
    assert json.loads(page.locator("#document").text_content()) == plan


def test_the_slider_shows_one_step_and_an_oops_where_it_happens(opened: Open):
    page = opened(document("run"))
    visible = page.locator(".step:visible")
    assert visible.count() == 1
    assert visible.locator("h3").inner_text().startswith("0 mmap")
    page.locator("#step").focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert visible.count() == 1
    assert "OOPS" in visible.locator("h3").inner_text()
    assert "oops function=_raw_spin_lock" in visible.inner_text()
    assert page.locator("#step-name").inner_text().startswith("2 mprotect")


def test_a_hostile_name_is_shown_and_runs_nothing(opened: Open):
    plan = document("plan")
    name = "<img src=x onerror=\"document.title='owned'\"><script>alert(1)</script>"
    for row in plan["mappings"]:
        row |= {"device": name, "policy": name, "notes": [name]}
    page = opened(plan)
    assert page.title() == "pfnmap plan"
    assert page.locator("h2").first.inner_text() == name
    assert page.locator("img").count() == 0


def test_everything_is_printed(opened: Open):
    page = opened(document("run"))
    page.emulate_media(media="print")
    assert page.locator(".step:visible").count() == 3
    assert page.locator("#step:visible").count() == 0
    assert len(page.pdf()) > 5000


@pytest.mark.parametrize("name", ["plan", "against", "run", "host", "log", "verify"])
def test_a_page_is_accessible_and_as_wide_as_a_phone(opened: Open, name: str):
    axe = pytest.importorskip("axe_core_python.sync_playwright", reason="axe-core-python is not installed")
    page = opened(document(name))
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    found = axe.Axe().run(page)["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")] == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_five_hundred_bars_are_there_in_under_two_seconds(opened: Open):
    plan = document("plan")
    rows = [{**plan["mappings"][1], "device": f"0000:{n // 5:02x}:00.0", "bar": n % 5} for n in range(500)]
    page = opened(plan | {"mappings": rows})
    painted = page.evaluate(
        "performance.getEntriesByType('paint').find(one => one.name === 'first-contentful-paint').startTime"
    )
    assert painted < 2000
    assert page.locator(".bar").count() == 500
