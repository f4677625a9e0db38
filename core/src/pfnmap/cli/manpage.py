"""Manual pages from the same source as the help: ``python -m pfnmap.cli.manpage DIR`` writes ``pfnmap.1`` and one page
a command that is installed."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from time import gmtime, strftime, time
from typing import Any

import typer

from pfnmap.cli.app import app
from pfnmap.cli.commands import Commands
from pfnmap.cli.examples import examples
from pfnmap.cli.options import Settings

__all__ = ["main", "pages"]


def pages() -> dict[str, str]:
    """Return the text of each page by its file's name."""
    settings = Settings()
    commands = Commands(lambda: settings.registry)
    top = typer.main.get_command(app)
    context = _context(top, "pfnmap", settings)
    listed = [part for name in commands for part in (".TP", f".BR pfnmap-{_roff(name)} (1)", _first(commands[name]))]
    lines = [*_page("pfnmap", top, context), ".SH COMMANDS", *listed]
    found = {"pfnmap.1": "\n".join([*lines, *_exit_codes()]) + "\n"}
    shown = examples()
    for name in commands:
        command = commands[name]
        lines = [*_page(f"pfnmap {name}", command, _context(command, name, settings))]
        if name in shown:
            lines += [".SH EXAMPLES", *_apart(f".B {_roff(line)}" for line in shown[name])]
        found[f"pfnmap-{name}.1"] = "\n".join([*lines, ".SH SEE ALSO", ".BR pfnmap (1)"]) + "\n"
    return found


def _context(command: Any, name: str, settings: Settings) -> Any:
    return command.context_class(command, info_name=name, obj=settings)


def _page(name: str, command: Any, context: Any) -> Iterator[str]:
    text = inspect.cleandoc(command.help or "")
    said = " ".join(text.partition("\n\n")[0].split()).rstrip(".")
    yield f'.TH "{_roff(name.replace(" ", "-").upper())}" 1 "{_date()}" "pfnmap {version("pfnmap")}"'
    yield from (".SH NAME", f"{_roff(name.replace(' ', '-'))} \\- {_roff(said)}", ".SH SYNOPSIS")
    yield f".B {_roff(name)}"
    yield _roff(" ".join(command.collect_usage_pieces(context)))
    yield ".SH DESCRIPTION"
    paragraphs = (_roff(" ".join(part.split())) for part in text.split("\n\n"))
    yield from _apart(paragraphs)
    panels: dict[str, list[Any]] = {}
    for parameter in command.get_params(context):
        if getattr(parameter, "help", None) and parameter.opts:
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append(parameter)
    for panel, parameters in panels.items():
        yield f'.SH "{_roff(panel.upper())}"'
        for parameter in parameters:
            option = parameter.param_type_name == "option"
            names = ", ".join(parameter.opts) if option else parameter.metavar or parameter.name.upper()
            value = "" if getattr(parameter, "is_flag", False) or not option else parameter.metavar or ""
            yield from (".TP", f"\\fB{_roff(names)}\\fR {_roff(value)}".rstrip(), _roff(parameter.help))


def _apart(paragraphs: Iterable[str]) -> list[str]:
    """Return paragraphs with what begins each but the first, which the heading above it begins."""
    return [part for paragraph in paragraphs for part in (".PP", paragraph)][1:]


def _date() -> str:
    """Return the day on which the pages are made, or that a reproducible build says (SOURCE_DATE_EPOCH)."""
    return strftime("%Y-%m-%d", gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time()))))


def _first(command: Any) -> str:
    return _roff(" ".join(inspect.cleandoc(command.help or "").partition("\n\n")[0].split()))


def _exit_codes() -> Iterator[str]:
    yield '.SH "EXIT STATUS"'
    codes = {
        "0": "yes, or done",
        "1": 'a clean "no": a disagreement, a missing fix, nothing compared',
        "2": "bad usage or bad input",
        "3": "refused: the model does not cover it",
        "130": "interrupted",
        "141": "the reader of a pipe has gone",
    }
    for code, text in codes.items():
        yield from (".TP", f".B {code}", _roff(text))


def _roff(text: str) -> str:
    """A text as roff takes it for text: no escape and no request in it."""
    plain = "".join(c if c.isprintable() else " " for c in text).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain


def main() -> None:
    """Write the pages into the directory that the command line names."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m pfnmap.cli.manpage DIR")
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (directory / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
