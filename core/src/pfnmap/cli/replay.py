"""``pfnmap replay``: recordings of real kernels against the model."""

from __future__ import annotations

import json as _json
import os
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pfnmap.cli.options import JsonOption, LimitOption, Settings
from pfnmap.cli.processes import JobsOption, in_processes
from pfnmap.cli.terminal import only_kernel, print_json, progress_bar, recorded_heading, show, styled, table, warn
from pfnmap.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pfnmap.budget import Budget
    from pfnmap.plugins import Registry
    from pfnmap.replay import ReplayResult

_SHOWN = 10
"""Disagreements that are shown without --verbose."""
_VALUE_WIDTH = 160


def command(
    context: typer.Context,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|DIR", help="Recordings, plain or .gz, or directories of them.", show_default=False
        ),
    ],
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show every disagreement in full, and every refused record.")
    ] = False,
    jobs: JobsOption = 1,
    limit: LimitOption = None,
    json: JsonOption = False,
) -> int:
    """Run the records of recordings and compare each step with what the real kernel did."""
    from pfnmap.budget import Budget

    budget = Budget.of(limit or ())
    settings: Settings = context.obj
    files = [file for path in paths for file in _recordings(path)]
    results: list[ReplayResult] = []
    stopped: KeyboardInterrupt | None = None
    try:
        if jobs > 1 and len(files) > 1:
            results.extend(in_processes(jobs, _replayed, files, settings.no_plugins, limit))
        else:
            results.extend(_one_by_one(files, settings.registry, budget))
    except KeyboardInterrupt as error:
        stopped = error
        warn(f"interrupted in {files[len(results)]}; told is what was done before it")
    if json:
        print_json(
            "replay",
            {**only_kernel([result.kernel for result in results]), "files": [result.as_json() for result in results]},
        )
    else:
        _render(results, verbose)
    if stopped is not None:
        raise stopped
    return _status(results)


def _one_by_one(files: list[str], registry: Registry, budget: Budget) -> Iterator[ReplayResult]:
    from pfnmap.replay import replay
    from pfnmap.scenario import read_recording

    for number, file in enumerate(files, 1):
        recording = read_recording(file, registry)
        with progress_bar(len(recording.records), f"{number}/{len(files)} {file}") as progress:
            yield replay(recording, registry, progress, budget)


def _replayed(file: str, no_plugins: bool, limit: list[str] | None) -> ReplayResult:
    """Replay a file in a process of its own."""
    from pfnmap.budget import Budget
    from pfnmap.plugins import Registry

    (result,) = _one_by_one([file], Registry(disabled=no_plugins), Budget.of(limit or ()))
    return result


def _recordings(path: str) -> list[str]:
    """Return the recordings in a directory, by name, or a file as it is."""
    if not os.path.isdir(path):
        return [path]
    found = sorted(name for name in os.listdir(path) if name.endswith((".json", ".json.gz")))
    if not found:
        raise BadInput(path, "a directory without recordings (*.json, *.json.gz)")
    return [os.path.join(path, name) for name in found]


def _status(results: list[ReplayResult]) -> int:
    """Return 1 where something disagreed or nothing was compared, 3 where something was refused, else 0."""
    if any(result.disagree for result in results):
        return 1
    if any(result.refused for result in results):
        return 3
    return 0 if any(result.fields for result in results) else 1


def _render(results: list[ReplayResult], verbose: bool) -> None:
    recorded_heading([result.kernel for result in results])
    rows = [_row(result) for result in results]
    if len(results) > 1:
        rows.append(_total(results))
    show(table(("file", "kernel", "records", "agree", "disagree", "refused"), rows, _NUMBERS))
    differences = [(result.file, one) for result in results for one in result.disagree]
    for file, one in differences if verbose else differences[:_SHOWN]:
        show(
            styled(f"{file}: {one.id} step {one.step}: {one.field}", "bold red"),
            f"  expected {_value(one.expected, verbose)}",
            f"  got      {_value(one.got, verbose)}",
        )
    if not verbose and len(differences) > _SHOWN:
        show(styled(f"and {len(differences) - _SHOWN} more; --verbose shows them", "dim"))
    refused = [(result.file, one) for result in results for one in result.refused]
    if verbose:
        for file, entry in refused:
            show(styled(f"{file}: {entry.id}: refused: {entry.reason}", "yellow"))
    elif refused:
        counts = Counter(entry.op for _, entry in refused).most_common()
        show(styled("refused: " + ", ".join(f"{op} {count}" for op, count in counts), "yellow"))


_NUMBERS = ("records", "agree", "disagree", "refused")


def _row(result: ReplayResult) -> tuple[Any, ...]:
    disagreeing = len({one.id for one in result.disagree})
    kernel = f"{result.kernel['arch']} {result.kernel['release']}"
    return (result.file, kernel, result.records, *_counts(result.agree, disagreeing, len(result.refused)))


def _total(results: list[ReplayResult]) -> tuple[Any, ...]:
    agree = sum(result.agree for result in results)
    disagree = sum(len({one.id for one in result.disagree}) for result in results)
    refused = sum(len(result.refused) for result in results)
    records = sum(result.records for result in results)
    return (styled("total", "bold"), "", records, *_counts(agree, disagree, refused))


def _counts(agree: int, disagree: int, refused: int) -> tuple[Any, ...]:
    return (
        styled(agree, "green" if agree else ""),
        styled(disagree, "bold red" if disagree else ""),
        styled(refused, "yellow" if refused else ""),
    )


def _value(value: Any, whole: bool) -> str:
    text = _json.dumps(value)
    return text if whole or len(text) <= _VALUE_WIDTH else f"{text[:_VALUE_WIDTH]}..."
