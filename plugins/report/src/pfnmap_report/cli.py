"""``pfnmap report``: one HTML page of what another command answered."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pfnmap.errors import BadInput
from pfnmap.output import check_writable, write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["app"]

app = typer.Typer(add_completion=False)


@app.command("report", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def command(
    context: typer.Context,
    output: Annotated[str, typer.Option("-o", "--output", metavar="FILE.html", help="The page.", show_default=False)],
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="FILE.json", help="What a command printed with --json.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write onto a file that exists.")] = False,
) -> int:
    """Make one self-contained HTML page of what plan, run, host, log or verify answer.

    Give --from, or a command with its options (report -o h100.html plan --lspci h100.txt); plan if none is named.
    """
    from pfnmap_report.document import COMMANDS, read_document
    from pfnmap_report.page import page

    if source is not None and context.args:
        raise BadInput("", f"--from and {context.args[0]} exclude each other")
    check_writable(output, force=force)
    status = 0
    if source is not None:
        document = read_document(source)
    else:
        arguments = context.args if context.args[:1] and context.args[0] in COMMANDS else ["plan", *context.args]
        document, status = _answer(arguments)
    try:
        text = page(document)
    except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise BadInput(source or "", f"not as {document['schema']} says: {said}") from error
    write_whole(output, text.encode(), force=force)
    return status


def _answer(arguments: Sequence[str]) -> tuple[dict[str, Any], int]:
    """Run a command and return what it prints and its exit code. Where it fails it has said why, and so it ends."""
    from pfnmap.cli.app import app as pfnmap

    more = {"run": ["--trace", "--dump"]}.get(arguments[0], [])
    said = io.StringIO()
    status: Any = 0
    with redirect_stdout(said):
        try:
            pfnmap([*arguments, *more, "--json"])
        except SystemExit as ended:
            status = ended.code
    if not said.getvalue():
        raise typer.Exit(status or 2)
    return json.loads(said.getvalue()), status
