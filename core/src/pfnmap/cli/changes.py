"""``pfnmap changes``: which upstream changes a release, or a tree by its log, has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pfnmap.cli.options import JsonOption, Settings
from pfnmap.cli.terminal import print_json, show, styled, table
from pfnmap.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pfnmap.host.gitlog import LogReport
    from pfnmap.plugins import Registry
    from pfnmap.release import Change, Facts, MissingFix, Release

_STYLES = {
    "yes": "green",
    "present": "green",
    "no": "red",
    "absent": "red",
    "reverted": "bold red",
    "unknown": "yellow",
    "undecidable": "yellow",
}


def command(
    context: typer.Context,
    first: Annotated[str | None, typer.Argument(metavar="R1", help="A release.")] = None,
    second: Annotated[str | None, typer.Argument(metavar="R2", help="Another: tell the difference.")] = None,
    log: Annotated[
        str | None,
        typer.Option(
            "--log", metavar="FILE|-", help="A git log, a ChangeLog of kernel.org, a Debian, Ubuntu or RPM changelog."
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", metavar="R", help="The log starts from this release (git log vR..).")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PROFILE.toml", help="Write what --release PROFILE.toml reads."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    json: JsonOption = False,
) -> int:
    """Show the known upstream changes, those of a release, or those that a tree's log of changes shows."""
    if first is not None and log is not None:
        raise BadInput("", "a release and --log exclude each other; --base says what the log starts from")
    if base is not None and log is None:
        raise BadInput("", "--base goes with --log")
    if output is not None and log is None and (first is None or second is not None):
        raise BadInput("", "-o goes with --log, or with one release")
    from pfnmap.release import facts

    settings: Settings = context.obj
    registry = settings.registry
    known = facts(registry)
    if log is not None:
        return _log(log, base, output, force, known, json)
    if first is None:
        return _all(registry, known, json)
    return _release(first, output, force, known, json) if second is None else _difference(first, second, known, json)


def _all(registry: Registry, known: Facts, json: bool) -> int:
    from dataclasses import asdict

    changes = known.changes.values()
    by = {package: registry.distribution_of(package) for package in {change.package for change in changes}}
    if json:
        rows = [{**asdict(change), "by": by[change.package]} for change in changes]
        print_json("changes", {"changes": rows})
        return 0
    cells = [(c.id, c.commit, c.first, ", ".join(c.backports), c.sure, by[c.package], _what(c)) for c in changes]
    show(table(("change", "commit", "first", "backports", "established by", "brought by", "what it does"), cells))
    return 0


def _what(change: Change) -> str:
    """What a change does, and how far the model goes along."""
    remarks = [] if change.modelled else ["not modelled"]
    if change.not_known:
        remarks.append(f"nobody here brings {', '.join(change.not_known)}, which it names")
    return change.title + (f" ({'; '.join(remarks)})" if remarks else "")


def _release(name: str, output: Path | None, force: bool, known: Facts, json: bool) -> int:
    from pfnmap.release import missing_fixes, parse_release, write_profile

    release = parse_release(name, known=known)
    missing = missing_fixes(release)
    if output is not None:
        write_profile(output, release.changes, force=force)
    if json:
        print_json(
            "changes",
            {
                "release": release.name,
                "changes": dict(release.changes),
                "missing_fixes": [_missing_json(fix) for fix in missing],
                "assumed": list(release.assumed),
            },
        )
        return 1 if missing else 0
    _head(release)
    rows = [
        (styled(status, _STYLES[status]), id, known.changes[id].commit, _what(known.changes[id]))
        for id, status in release.changes.items()
    ]
    show(table(("has it", "change", "commit", "what it does"), rows))
    _show_missing(missing)
    return 1 if missing else 0


def _difference(first: str, second: str, known: Facts, json: bool) -> int:
    from pfnmap.release import difference, parse_release, picks

    before, after = parse_release(first, known=known), parse_release(second, known=known)
    found, picked = difference(before, after), picks(before, after)
    unknown = [id for id, status in before.changes.items() if status == after.changes[id] == "unknown"]
    if before.name == after.name:  # whatever it has, it does not differ from itself
        unknown = []
    if json:
        rows: list[dict[str, Any]] = [{"change": one.change, "before": one.before, "after": one.after} for one in found]
        picks_json = [
            {"change": c.id, "commit": c.commit, "subject": c.subject, "requires": c.requires} for c in picked
        ]
        print_json(
            "changes",
            {"releases": [before.name, after.name], "difference": rows, "unknown": unknown, "picks": picks_json},
        )
        return 0
    number = "no" if unknown and not found else len(found)
    count = "1 known change differs" if number == 1 else f"{number} known changes differ"
    show(styled(f"{before.name} -> {after.name}: {count}", "bold"))
    if unknown:
        show(styled(f"not known of either, {len(unknown)}: {', '.join(unknown)}", _STYLES["unknown"]))
    cells = [
        (
            styled(d.before, _STYLES[d.before]),
            styled(d.after, _STYLES[d.after]),
            d.change,
            _what(known.changes[d.change]),
        )
        for d in found
    ]
    if cells:
        show(table((before.name, after.name, "change", "what it does"), cells))
    if picked:
        show(f"\nto be picked onto {before.name}, in this order:")
        lines = [(c.commit, c.id, c.subject, ", ".join(c.requires)) for c in picked]
        show(table(("commit", "change", "subject", "requires"), lines))
    return 0


def _log(path: str, base: str | None, output: Path | None, force: bool, known: Facts, json: bool) -> int:
    from pfnmap.host.gitlog import read_gitlog_file
    from pfnmap.release import write_profile

    report = read_gitlog_file(path, base, known)
    if output is not None:
        write_profile(output, report.release.changes, report.base, force=force)
    if json:
        print_json(
            "changes",
            {
                "log": path,
                "commits": report.commits,
                "newest_release": report.newest_release,
                "ground": report.ground,
                "complete": report.complete,
                "changes": [
                    {"change": f.change, "verdict": f.verdict, "line": f.line, "commit": f.commit, "detail": f.detail}
                    for f in report.findings
                ],
                "missing_fixes": [_missing_json(fix) for fix in report.missing_fixes],
            },
        )
        return 1 if report.missing_fixes else 0
    _show_log(path, report)
    _show_missing(report.missing_fixes)
    return 1 if report.missing_fixes else 0


def _show_log(path: str, report: LogReport) -> None:
    extent = f"down to {report.ground}" if report.ground else "complete" if report.complete else "it may be cut"
    newest = f", newest release {report.newest_release}" if report.newest_release else ""
    commits = "1 commit" if report.commits == 1 else f"{report.commits:,} commits"
    show(styled(f"{path}: {commits}{newest}, {extent}", "bold"))
    rows = [(styled(f.verdict, _STYLES[f.verdict]), f.change, f.line or "", f.detail) for f in report.findings]
    show(table(("verdict", "change", "line", "which says so"), rows, numbers=("line",)))


def _head(release: Release) -> None:
    counts = {status: list(release.changes.values()).count(status) for status in ("yes", "no", "unknown")}
    show(styled(f"{release.name}: {counts['yes']} changes, {counts['no']} not, {counts['unknown']} unknown", "bold"))
    for sentence in release.assumed:
        show(styled(f"assumed: {sentence}", "dim"))


def _missing_json(fix: MissingFix) -> dict[str, str]:
    return {"fix": fix.fix, "fixes": fix.fixes}


def _show_missing(missing: Iterable[MissingFix]) -> None:
    for fix in missing:
        show(styled(f"missing: {fix.fix}, which repairs {fix.fixes}", "bold red"))
