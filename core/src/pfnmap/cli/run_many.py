"""``pfnmap run`` of several scenarios: each on a machine of its own, and what each came to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pfnmap.cli.options import KernelOptions, Settings
from pfnmap.cli.processes import in_processes
from pfnmap.cli.run_one import carried_out, difference
from pfnmap.cli.terminal import print_json, show, styled, table, warn

if TYPE_CHECKING:
    from pfnmap.plugins import Registry

__all__ = ["run_many"]


def run_many(
    scenarios: Sequence[str],
    kernel: KernelOptions,
    settings: Settings,
    jobs: int,
    limit: list[str] | None,
    trace: bool,
    dump: bool,
    json: bool,
) -> int:
    """Run scenarios; return 1 where an `expect` did not hold, 3 where something was refused, else 0."""
    documents: list[dict[str, Any]] = []
    stopped: KeyboardInterrupt | None = None
    try:
        for document in _documents(scenarios, kernel, settings, jobs, limit, trace, dump):
            documents.append(document)
            if "interrupted" in document:
                raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        stopped = error
        warn(f"interrupted after {len(documents)} of {len(scenarios)} scenarios")
    if json:
        print_json("run", {"files": documents})
    else:
        _render(documents)
    if stopped is not None:
        raise stopped
    if any(document["failed"] for document in documents):
        return 1
    return 3 if any("refused" in document for document in documents) else 0


def _documents(
    scenarios: Sequence[str],
    kernel: KernelOptions,
    settings: Settings,
    jobs: int,
    limit: list[str] | None,
    trace: bool,
    dump: bool,
) -> Iterator[dict[str, Any]]:
    if jobs > 1:
        yield from in_processes(jobs, _in_process, scenarios, settings.no_plugins, kernel, limit, trace, dump)
        return
    for file in scenarios:
        yield _document(file, settings.registry, kernel, limit, trace, dump)


def _document(
    file: str, registry: Registry, kernel: KernelOptions, limit: list[str] | None, trace: bool, dump: bool
) -> dict[str, Any]:
    return {"file": file, **carried_out(file, kernel, registry, limit, trace, dump, quiet=True).document}


def _in_process(
    file: str, no_plugins: bool, kernel: KernelOptions, limit: list[str] | None, trace: bool, dump: bool
) -> dict[str, Any]:
    """Run a scenario in a process of its own."""
    return _document(file, Settings(no_plugins).registry, kernel, limit, trace, dump)


def _render(documents: Sequence[dict[str, Any]]) -> None:
    rows = []
    for document in documents:
        kernel, steps, failed = document["kernel"], len(document["steps"]), len(document["failed"])
        refused = int("refused" in document)
        rows.append(
            (
                document["file"],
                f"{kernel['arch']} {kernel['release']}",
                steps,
                styled(failed, "bold red" if failed else ""),
                styled(refused, "yellow" if refused else ""),
            )
        )
    show(table(("file", "kernel", "steps", "failed", "refused"), rows, ("steps", "failed", "refused")))
    for document in documents:
        for one in document["failed"]:
            show(styled(f"{document['file']}: step {one['step']}: {difference(one)}", "bold red"))
        if one := document.get("refused"):
            show(styled(f"{document['file']}: step {one['step']}: {one['op']}: {one['reason']}", "yellow"))
