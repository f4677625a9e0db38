"""A hook of mkdocs: the pages of the reference that the program itself writes, and the pages of the packages, which
stand beside their sources; links between those and the rest are turned."""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

COMMANDS = (
    "plan", "vmm", "host", "log", "fleet", "tables", "run", "replay", "verify", "caps", "kconfig", "changes", "check",
    "plugins", "new", "report",
)  # fmt: skip
API = """# Python

What a plugin may use, and how a program plans.

::: pfnmap

::: pfnmap.kernel.Kernel

::: pfnmap.plan.plan
"""


SHIM = "https://unpkg.com/iframe-worker/shim"
ROOT = Path(__file__).resolve().parents[1]
BESIDE = {f"plugins/{path.parent.name}/README.md": path.parent.name for path in ROOT.glob("plugins/*/README.md")}
BESIDE |= {"examples/README.md": "examples", "verify/README.md": "verify"}
PLACES = {source: f"packages/{name}.md" for source, name in BESIDE.items()}
"""Where pages that are not in docs/ stand on the site."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in docs/."""
    for path, text in {"commands": commands(), "changes": changes(), "api": API}.items():
        files.append(File.generated(config, f"reference/{path}.md", content=text))
    for source, place in PLACES.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn the links that leave docs/, or lead into it from outside: to the page's place, else to the words alone."""
    place = page.file.src_uri
    source = next((source for source, at in PLACES.items() if at == place), f"docs/{place}")

    def turned(link: re.Match[str]) -> str:
        words, target, anchor = link[1], link[2], link[3] or ""
        if "://" in target or not target:
            return link[0]
        leads = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        there = PLACES.get(leads) or (leads.removeprefix("docs/") if leads.startswith("docs/") else "")
        if not there:
            return words
        return f"[{words}]({posixpath.relpath(there, posixpath.dirname(place) or '.')}{anchor})"

    return re.sub(r"\[([^\]]+)\]\(([^)#\s]*)(#[^)\s]*)?\)", turned, markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Take the frame that search runs in on a disk from beside the page."""
    return output.replace(SHIM, posixpath.relpath("assets/iframe_worker.js", posixpath.dirname(page.url) or "."))


def on_post_template(output_content: str, **_: Any) -> str:
    """The same for the page that is shown where there is none."""
    return output_content.replace(SHIM, "assets/iframe_worker.js")


def commands() -> str:
    """Return the help of every command that is installed."""
    parts = ["# Help of every command"]
    for name in COMMANDS:
        done = pfnmap(name, "--help")
        if done.returncode == 0:
            parts.append(f"## pfnmap {name}\n\n```text\n{done.stdout.strip()}\n```")
    return "\n\n".join(parts) + "\n"


def changes() -> str:
    """Return the table of the known upstream changes."""
    return f"# Upstream changes\n\n```text\n{pfnmap('changes').stdout.strip()}\n```\n"


def pfnmap(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a terminal of 100 columns."""
    code = "from pfnmap.cli import main; main()"
    words = [sys.executable, "-c", code, *arguments]
    return subprocess.run(words, env={**os.environ, "COLUMNS": "100"}, capture_output=True, text=True, check=False)
