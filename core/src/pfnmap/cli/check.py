"""``pfnmap check``: an architecture against golden vectors of the real kernel's own helpers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from pfnmap.cli.options import JsonOption, Settings
from pfnmap.cli.terminal import only_kernel, print_json, progress_bar, recorded_heading, show, styled, table
from pfnmap.errors import BadInput

if TYPE_CHECKING:
    from pfnmap.plugins import Registry
    from pfnmap.testing.vectors import Checked


class _Result(NamedTuple):
    file: str
    kernel: dict[str, Any]
    checked: Checked


def command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Architecture plugin.", show_default=False)],
    more: Annotated[list[str] | None, typer.Argument(metavar="FILE", help="More files for --vectors.")] = None,
    vectors: Annotated[
        list[str] | None,
        typer.Option("--vectors", metavar="FILE", help="Golden vectors, plain or .gz.", show_default=False),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the counts of every helper.")] = False,
    json: JsonOption = False,
) -> int:
    """Compare an architecture with what the real kernel's own page-table helpers answered."""
    if not vectors:
        raise BadInput("", "--vectors FILE... is missing")
    settings: Settings = context.obj
    registry = settings.registry()
    registry.load("arch", name)
    files = [*vectors, *(more or ())]
    results = []
    with progress_bar(len(files), f"check {name}") as progress:
        for number, file in enumerate(files, 1):
            results.append(_check(name, file, registry))
            progress(number)
    if json:
        entries = [{"file": r.file, "kernel": r.kernel, **r.checked.as_dict()} for r in results]
        print_json("check", {**only_kernel([r.kernel for r in results]), "files": entries})
    else:
        _render(results, verbose)
    agree = all(r.checked.rows == r.checked.agree for r in results)
    return 0 if agree and any(r.checked.rows for r in results) else 1


def _check(name: str, file: str, registry: Registry) -> _Result:
    from pfnmap.kernel import Kernel
    from pfnmap.testing.vectors import check_vectors, machine_of, read_vectors

    vectors = read_vectors(file)
    if vectors.arch != name:
        raise BadInput(file, f"vectors of {vectors.arch}, not of {name}")
    machine = machine_of(vectors, registry)
    kernel = Kernel.link(**machine._asdict(), config_source=f"machine of {file}", registry=registry)
    return _Result(file, kernel.describe(), check_vectors(vectors, kernel))


def _render(results: list[_Result], verbose: bool) -> None:
    recorded_heading([r.kernel for r in results])
    rows = [_row(r.file, f"{r.kernel['arch']} {r.kernel['release']}", r.checked.rows, r.checked.agree) for r in results]
    if len(results) > 1:
        total = sum(r.checked.rows for r in results), sum(r.checked.agree for r in results)
        rows.append(_row(styled("total", "bold"), "", *total))
    show(table(("file", "kernel", "rows", "agree", "disagree"), rows, numbers=("rows", "agree", "disagree")))
    for result in results:
        if verbose:
            show("", styled(result.file, "bold"), _helpers(result.checked))
        for one in result.checked.disagree:
            shown = one.as_dict()
            call = f"{one.helper}({', '.join(shown['inputs'])})"
            show(styled(f"{result.file}: {call}: expected {shown['expected']}, got {shown['got']}", "red"))


def _row(file: Any, kernel: str, rows: int, agree: int) -> tuple[Any, ...]:
    wrong = rows - agree
    agreeing = styled(f"{agree:,}", "green" if agree else "")
    return (file, kernel, f"{rows:,}", agreeing, styled(f"{wrong:,}", "bold red" if wrong else ""))


def _helpers(checked: Checked) -> Any:
    rows: list[tuple[Any, ...]] = [(helper, n["rows"], n["agree"]) for helper, n in checked.helpers.items()]
    left_out = Counter(checked.out_of_scope.values())
    rows += [(styled(f"{count} helpers: {why}", "dim"), "", "") for why, count in left_out.items()]
    return table(("helper", "rows", "agree"), rows, numbers=("rows", "agree"))
