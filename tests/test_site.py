"""The site: it builds without a warning, loads nothing from elsewhere, has no dead link, and its search finds things.

Search is tried in Debian's chromium, driven by playwright, where both are there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("material", reason="mkdocs-material is not installed")
pytest.importorskip("mkdocstrings_handlers.python", reason="mkdocstrings[python] is not installed")


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(place)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return place


def test_no_page_loads_anything_from_elsewhere_and_no_link_is_dead(site: Path):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"([^\"]+)\"", text)
        loaded += re.findall(r"<link[^>]* rel=\"stylesheet\"[^>]* href=\"([^\"]+)\"", text)
        assert [one for one in loaded if "//" in one] == [], page
        for target in {*loaded, *re.findall(r"<a [^>]*href=\"([^\"#:]+)(?:#[^\"]*)?\"", text)} - {"."}:
            assert page.name == "404.html" or (page.parent / target).exists(), (page, target)


def test_the_search_finds_a_slow_vm_boot(site: Path):
    found = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    words = {"slow", "vm", "boot"}
    hits = [one["location"] for one in found if words <= set(re.findall(r"\w+", one["title"].lower()))]
    assert hits == ["index.html#slow-vm-boot"]


def test_the_search_works_from_disk(site: Path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.locator(".md-search__input").focus()
        page.locator(".md-search__input").press_sequentially("slow VM boot")
        first = page.locator(".md-search-result__item").first.inner_text(timeout=30_000)
        browser.close()
    assert "Slow VM boot" in first
    assert [url for url in asked if not url.startswith(("file:", "about:", "data:"))] == []


def test_the_help_of_every_command_of_the_tool_is_there(site: Path):
    text = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    for name in (
        "plan",
        "run",
        "replay",
        "check",
        "caps",
        "kconfig",
        "changes",
        "new",
        "plugins",
        "vmm",
        "host",
        "report",
    ):
        assert f'id="pfnmap-{name}"' in text, name
