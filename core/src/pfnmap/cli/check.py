"""``pfnmap check``: the conformance kit on a plugin; an architecture against golden vectors of the real kernel's own
helpers; and those vectors against the kit's laws."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from pfnmap.cli.options import JsonOption, Settings, cpu_values
from pfnmap.cli.terminal import only_kernel, print_json, progress_bar, recorded_heading, show, styled, table
from pfnmap.errors import BadInput, NotInstalled, Unknown
from pfnmap.offers import how_to_install

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pfnmap.plugins import Kind, Registry
    from pfnmap.testing.check import Result as ConformanceResult
    from pfnmap.testing.check import Status
    from pfnmap.testing.laws import Result
    from pfnmap.testing.vectors import Checked


class _Result(NamedTuple):
    file: str
    kernel: dict[str, Any]
    checked: Checked


def command(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Architecture or driver plugin.", show_default=False)
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="FILE", help="More files for --vectors.")] = None,
    vectors: Annotated[
        list[str] | None,
        typer.Option("--vectors", metavar="FILE", help="Golden vectors, plain or .gz.", show_default=False),
    ] = None,
    cpu: Annotated[
        list[str] | None,
        typer.Option(
            "--cpu",
            metavar="KEY=VAL",
            help="With --vectors: boot-time state that the files do not say, or say otherwise; repeatable.",
            show_default=False,
        ),
    ] = None,
    mutants: Annotated[
        int | None,
        typer.Option(
            "--mutants",
            metavar="N",
            min=1,
            help="Break the architecture's own source in N ways, and report what the kit (and --vectors) does not see.",
            show_default=False,
        ),
    ] = None,
    laws: Annotated[
        bool, typer.Option("--laws", help="Judge the kernel's own answers in --vectors by the kit's laws; no plugin.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every check, law or helper.")] = False,
    json: JsonOption = False,
) -> int:
    """Run the conformance kit on a plugin, or compare an architecture with the kernel's own helpers (--vectors)."""
    settings: Settings = context.obj
    if laws:
        if not vectors:
            raise BadInput("", "--laws needs --vectors FILE...")
        return _laws([*vectors, *([name] if name else []), *(more or ())], verbose, json)
    if not name:
        raise BadInput("", "NAME is missing: an architecture or driver plugin")
    if more and not vectors:
        raise BadInput("", f"{more[0]}: files go with --vectors")
    files, registry = [*(vectors or ()), *(more or ())], settings.registry
    if cpu and (mutants or not files):
        raise BadInput("", "--cpu goes with --vectors: the kit chooses its own machines")
    if mutants:
        return _mutants(name, mutants, files, registry, json)
    if not files:
        return _conformance(name, registry, verbose, json)
    return _vectors(name, files, cpu_values(registry.load("arch", name), cpu or ()), registry, verbose, json)


# --vectors: an architecture and the kernel's own answers


def _vectors(name: str, files: list[str], cpu: Mapping[str, Any], registry: Registry, verbose: bool, json: bool) -> int:
    results = []
    with progress_bar(len(files), f"check {name}") as progress:
        for number, file in enumerate(files, 1):
            results.append(_check(name, file, cpu, registry))
            progress(number)
    if json:
        entries = [{"file": r.file, "kernel": r.kernel, **r.checked.as_dict()} for r in results]
        print_json("check", {**only_kernel([r.kernel for r in results]), "files": entries})
    else:
        _render(results, verbose)
    agree = all(r.checked.rows == r.checked.agree for r in results)
    return 0 if agree and any(r.checked.rows for r in results) else 1


def _check(name: str, file: str, cpu: Mapping[str, Any], registry: Registry) -> _Result:
    from pfnmap.kernel import Kernel
    from pfnmap.testing.vectors import check_vectors, machine_of, read_vectors

    vectors = read_vectors(file)
    if vectors.arch != name:
        raise BadInput(file, f"vectors of {vectors.arch}, not of {name}")
    machine = machine_of(vectors, registry)
    machine = machine._replace(cpu={**machine.cpu, **cpu})
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


# --laws: the kernel's own answers and the kit's laws


def _laws(files: list[str], verbose: bool, json: bool) -> int:
    from pfnmap.testing.laws import judge
    from pfnmap.testing.vectors import read_vectors

    judged = []
    for file in files:
        vectors = read_vectors(file)
        judged.append((file, vectors.arch, vectors.release, judge(vectors)))
    broken = sum(result.broken for *_, results in judged for result in results)
    rows = sum(result.rows for *_, results in judged for result in results)
    if json:
        entries = [
            {
                "file": file,
                "arch": arch,
                "release": release,
                "rows": sum(result.rows for result in results),
                "broken": sum(result.broken for result in results),
                "laws": [result.as_dict() for result in results],
            }
            for file, arch, release, results in judged
        ]
        print_json("check", {"files": entries})
    else:
        for file, arch, release, results in judged:
            _render_laws(file, f"{arch} {release}", results, verbose)
    return 0 if rows and not broken else 1


def _render_laws(file: str, kernel: str, results: list[Result], verbose: bool) -> None:
    show(styled(f"{file}: {kernel}", "bold"))
    rows: list[tuple[Any, ...]] = []
    for result in results:
        if result.rows or verbose:
            wrong = styled(f"{result.broken:,}", "bold red" if result.broken else "")
            rows.append((result.law.name, result.level, f"{result.rows:,}", wrong, result.not_tried or result.law.text))
    show(table(("law", "level", "rows", "broken", ""), rows, numbers=("rows", "broken")))
    for result in results:
        for one in result.examples:
            call = f"{one.helper}({', '.join(hex(value) for value in one.inputs)})"
            show(styled(f"{result.law.name} {result.level}: {call}: {one.wrong}", "red"))
    left_out = sum(not result.rows for result in results)
    show(styled(f"{left_out} of {len(results)} could not be tried" + ("" if verbose else "; -v says why"), "dim"), "")


# NAME alone: the conformance kit


def _conformance(name: str, registry: Registry, verbose: bool, json: bool) -> int:
    kind = _kind(name, registry)
    from pfnmap.testing.kit import arch_kit, driver_kit

    kit = arch_kit(name, registry=registry) if kind == "arch" else driver_kit(name, registry=registry)
    items = list(kit.items(unclaimed=True))
    results = []
    with progress_bar(len(items), f"check {name}") as progress:
        for number, item in enumerate(items, 1):
            results.append(kit.run(item))
            progress(number)
    counts = Counter(result.status for result in results)
    machines = list(dict.fromkeys(result.machine for result in results if result.machine))
    if json:
        print_json(
            "check",
            {
                "plugin": name,
                "kind": kind,
                "counts": {status.replace(" ", "_"): count for status, count in counts.items()},
                "machines": [{"name": machine, **kit.described(machine)} for machine in machines],
                "results": [result.as_dict() for result in results],
            },
        )
    else:
        _render_conformance(name, machines, results, counts, verbose)
    return 0 if counts["passed"] and all(result.good for result in results) else 1


# --mutants: what the kit does not see


def _mutants(name: str, count: int, files: list[str], registry: Registry, json: bool) -> int:
    if _kind(name, registry) != "arch":
        raise BadInput("", f"{name}: mutants are made of architectures")
    from pfnmap.testing.mutation import run

    survivors, done = [], 0
    with progress_bar(count, f"mutants of {name}") as progress:
        for done, outcome in enumerate(run(registry.load("arch", name), count, files), 1):
            if not outcome.caught:
                survivors.append(outcome.mutant)
            progress(done)
    if json:
        shown = [{"file": m.file, "line": m.line, "change": m.change} for m in survivors]
        print_json("check", {"plugin": name, "mutants": done, "caught": done - len(survivors), "survivors": shown})
    else:
        for mutant in survivors:
            show(styled(f"{mutant.file}:{mutant.line}: {mutant.change}", "yellow"))
        show(f"{done} mutants of {name}: {done - len(survivors)} caught, {len(survivors)} survive")
    return 0


def _kind(name: str, registry: Registry) -> Kind:
    kinds: tuple[Kind, ...] = ("arch", "driver")
    for kind in kinds:
        if any(plugin.name == name for plugin in registry.plugins(kind)):
            return kind
    if hint := how_to_install(name, *kinds):
        raise NotInstalled("plugin", name, hint)
    raise Unknown("architecture or driver", name, [*registry.names("arch"), *registry.names("driver")])


def _render_conformance(
    name: str, machines: list[str], results: list[ConformanceResult], counts: Counter[Status], verbose: bool
) -> None:
    show(styled(f"{name} on {len(machines)} machines: {', '.join(machines)}", "bold"))
    if verbose:
        rows: list[tuple[Any, ...]] = [
            (r.machine, r.case.id, styled(r.status, _STYLES.get(r.status, "")), r.detail or r.case.check.reason)
            for r in results
        ]
        show(table(("machine", "check", "", ""), rows))
    for result in results:
        if not result.good or result.status == "expected failure":
            where = f"{result.machine}: " if result.machine else ""
            text = f"{where}{result.case.id}: {result.status}: {result.detail}"
            show(styled(text, _STYLES.get(result.status, "")))
            if not result.good:
                show(styled(f"    {result.case.check.reason}", "dim"))
    show(", ".join(f"{count:,} {status}" for status, count in counts.most_common()))


_STYLES: dict[Status, str] = {
    "passed": "green",
    "failed": "red",
    "unexpected pass": "red",
    "expected failure": "yellow",
    "not claimed": "dim",
    "waiting": "dim",
    "skipped": "dim",
}
