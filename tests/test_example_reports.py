"""A report of each example opens in a browser without a word on the console, and its figures are the document's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pfnmap_report", reason="pfnmap-report is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pfnmap-report[browser]")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
ASKED = [
    *(("plan", str(file), "--vmm", "qemu-9.2", "--release", "6.14") for file in sorted(EXAMPLES.glob("lspci/*.txt"))),
    *(("run", str(file)) for file in sorted(EXAMPLES.glob("scenarios/*.toml"))),
    *(("host", "--root", str(file)) for file in sorted(EXAMPLES.glob("hosts/*.tar.xz"))),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: f"{asked[0]}-{Path(asked[-1]).stem}-{Path(asked[1]).stem}")
def test_a_report_of_an_example_opens_and_says_what_is_answered(browser, pfnmap, monkeypatch, tmp_path, asked):
    monkeypatch.chdir(EXAMPLES.parent)
    file = tmp_path / "page.html"
    done = pfnmap("report", "-o", file, *asked)
    assert done.exit_code in (0, 1), done.output
    assert asked[0] == "run" or file.stat().st_size < 500_000
    said: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(file.as_uri())
    document = json.loads(page.locator("#document").text_content())
    shown = page.locator("main").text_content()  # what is off the screen is not drawn, and has no inner text
    for row in document.get("mappings", ()):
        counts = [f"{count:,} x" for count in row["counts"].values() if count]
        assert [text for text in counts if text not in shown] == []
    for number, step in enumerate(document.get("steps", ())):
        page.locator("#step").fill(str(number))
        heading = page.locator(".step:visible h3").inner_text()
        assert heading.startswith(f"{number} {step['op']}")
        assert heading.endswith(step["result"])
    page.close()
    assert said == []
