"""``--batch``: a command that answers line after line, each as if its keys were options on the command line.

A line is an object keyed by the long options' names; what it does not say the command line says. A worker links a
kernel once for all lines that are about it, and answers once what lines ask that differ in nothing but their `id`.
"""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeGuard

import typer

from pfnmap.cli.options import Settings
from pfnmap.cli.streams import write_lines
from pfnmap.cli.terminal import counting, warn
from pfnmap.errors import BadInput, PfnmapError, nearest

if TYPE_CHECKING:
    from pfnmap.batch import Answers, Line
    from pfnmap.kernel import Kernel
    from pfnmap.plugins import Registry
    from pfnmap.spec import KernelSpec

__all__ = ["DESK", "BatchOption", "DaskOption", "Desk", "JobsOption", "run_batch"]

DESK: Final = "pfnmap desk"
"""Where in a context's `meta` a command finds who takes its document."""
_KERNELS: Final = 32
_ANSWERS: Final = 1024
_AGAIN: Final = 1024
"""Lines, but for their BARs, of which a worker keeps what answers others like them."""
_ANSWER_BYTES: Final = 1 << 26
"""Bytes of the answers that a worker keeps."""

_PANEL: Final = "Many machines"
BatchOption = Annotated[
    bool,
    typer.Option("--batch", help="JSON lines or tar files of hosts in, a document a line out.", rich_help_panel=_PANEL),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs", metavar="N", help="With --batch: in so many processes.", rich_help_panel=_PANEL, show_default=False
    ),
]
DaskOption = Annotated[
    str | None,
    typer.Option(
        "--dask",
        metavar="ADDRESS",
        help="With --batch: on the workers of this dask.distributed cluster.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]


@dataclass
class Desk:
    """Who links kernels for a command, hears its warnings, and takes its document (None: it is printed)."""

    registry: Registry
    take: Callable[[dict[str, Any]], None] | None = None
    warn: Callable[[str], None] = warn
    again: Callable[[Sequence[str]], str | None] | None = None
    """What answers lines that say other BARs and else the same as the last one: the document as text, without the
    braces. None, or an error: it cannot."""
    _kernels: OrderedDict[str, tuple[Kernel, list[str]]] = field(default_factory=OrderedDict)

    def linked(self, key: str) -> Kernel | None:
        """Return a kernel that was linked before, by the text of what was said of it; None where it is gone."""
        if key not in self._kernels:
            return None
        self._kernels.move_to_end(key)
        return self._kernels[key][0]

    def link(self, spec: KernelSpec, warn: Callable[[str], None]) -> Kernel:
        """Link a kernel; in a batch one that was linked before is taken again."""
        if self.take is None:
            return spec.link(self.registry, warn)
        key = repr(spec)
        if key not in self._kernels:
            said: list[str] = []
            self._kernels[key] = spec.link(self.registry, said.append), said
            if len(self._kernels) > _KERNELS:
                self._kernels.popitem(last=False)
        self._kernels.move_to_end(key)
        kernel, said = self._kernels[key]
        for text in said:
            warn(text)
        return kernel


@dataclass(frozen=True)
class Job:
    """What every worker is told: the command, what the command line says, and the options of plugins."""

    command: str
    no_plugins: bool
    allowed: str | None
    """PFNMAP_PLUGINS, which another machine's worker does not have."""
    said: Mapping[str, Any]
    meta: Mapping[str, Any]

    @property
    def key(self) -> str:
        """What tells it from others."""
        return repr((self.command, self.no_plugins, self.allowed, self.said, self.meta))


def run_batch(context: typer.Context, command: str, files: Sequence[str], meta: Mapping[str, Any]) -> int:
    """Answer every line of files (none: standard input); return 1 where some line was broken."""
    import os

    from pfnmap.batch import CHUNK, chunks, in_order, lines, over_cluster, over_processes

    said = dict(context.params)
    jobs, dask = said.pop("jobs"), said.pop("dask")
    if not said.pop("batch"):
        raise BadInput("--jobs" if jobs is not None else "--dask", "goes with --batch")
    if jobs is not None and jobs < 1:
        raise BadInput("--jobs", f"{jobs} is not a number of processes; 1 is the least")
    if jobs is not None and dask is not None:
        raise BadInput("", "--jobs and --dask exclude each other")
    settings: Settings = context.obj or Settings()
    job = Job(command, settings.no_plugins, os.environ.get("PFNMAP_PLUGINS"), {**said, "inputs": None}, meta)
    broken = done = 0
    with ExitStack() as stack:
        workers, size, submit = 1, 1, None
        if dask is not None:
            submit, workers = stack.enter_context(over_cluster(dask, answer_chunk, job))
            size = CHUNK
        elif jobs is not None and jobs > 1:
            submit, workers, size = stack.enter_context(over_processes(jobs, answer_chunk, job)), jobs, CHUNK
        progress = stack.enter_context(counting("hosts"))
        given = chunks(lines(files or ["-"], _packed), size)
        here = (answer_chunk(job, chunk) for chunk in given)
        for answers in here if submit is None else in_order(given, submit, workers):
            write_lines(sys.stdout.buffer, answers.text)
            done += answers.lines
            broken += answers.broken
            progress(done)
    if broken:
        warn(f"{broken} of {done} lines could not be answered")
    return int(broken > 0)


def _packed(path: str) -> bytes:
    return json.dumps({"root": path}).encode()


_DESKS: dict[str, _Worker] = {}


def answer_chunk(job: Job, chunk: Sequence[Line]) -> Answers:
    """Answer lines, in the process of whoever calls."""
    from pfnmap.batch import Answers

    key = job.key
    if key not in _DESKS:
        _DESKS.clear()
        _DESKS[key] = _Worker(job)
    worker = _DESKS[key]
    before = worker.broken
    text = b"".join([worker.answer(line) for line in chunk])
    return Answers(text, len(chunk), worker.broken - before)


class _Worker:
    """One process's share: its registry, its kernels, and what it has answered."""

    def __init__(self, job: Job) -> None:
        from pfnmap.cli.commands import Commands
        from pfnmap.plugins import Registry

        self.job = job
        registry = Registry(job.allowed, disabled=job.no_plugins)
        self.settings = Settings(no_plugins=job.no_plugins)
        self.settings.__dict__["registry"] = registry  # a cached property: this one is taken
        self.taken: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        self.desk = Desk(registry, self.taken.append, self.warnings.append)
        loaded = registry.load("command", job.command)
        app = isinstance(loaded, typer.Typer)
        self.function: Callable[..., Any] = loaded.registered_commands[0].callback if app else loaded
        command = Commands(lambda: registry)[job.command]
        context = command.context_class(command, info_name=job.command, obj=self.settings)
        self.options = {
            word.removeprefix("--").replace("-", "_"): parameter
            for parameter in command.get_params(context)
            for word in parameter.opts
            if word.startswith("--") and word not in ("--batch", "--jobs", "--dask", "--json", "--help")
        }
        self.meta = dict(context.meta)
        self.answers: OrderedDict[tuple[str, tuple[str, ...]], bytes] = OrderedDict()
        self.again: OrderedDict[str, tuple[Callable[[Sequence[str]], str | None], str]] = OrderedDict()
        self.kept = self.broken = 0

    def answer(self, line: Line) -> bytes:
        """Return the document for a line, or why there is none."""
        ident: dict[str, Any] = {}
        try:
            if line.error:
                raise BadInput("", line.error)
            asked = _parsed(line.content)
            if "id" in asked:
                ident = {"id": asked.pop("id")}
            body = self._body(asked)
        except PfnmapError as error:
            return self._broken({"line": line.number, **ident, "error": str(error)})
        except Exception as error:  # one line's trouble is none of the others'
            said = " ".join(f"{type(error).__name__}: {error}".split())
            return self._broken({"line": line.number, **ident, "error": f"internal error: {said}"})
        head = json.dumps({"schema": f"pfnmap-{self.job.command}/1", "line": line.number, **ident})
        return b"%b, %b\n" % (head[:-1].encode(), body)

    def _broken(self, document: Mapping[str, Any]) -> bytes:
        self.broken += 1
        return f"{json.dumps(document)}\n".encode()

    def _body(self, asked: dict[str, Any]) -> bytes:
        """Return the document but its opening brace: the one that was made before of a line that asks the same."""
        said = asked.get("bar")
        bars: list[str] = [said] if isinstance(said, str) else said if _are_texts(said) else []
        rest = json.dumps({name: value for name, value in asked.items() if name != "bar"} if bars else asked)
        key = rest, tuple(bars)
        if key in self.answers and "root" not in asked:
            self.answers.move_to_end(key)
            return self.answers[key]
        body = self._again(rest, bars) if bars and rest in self.again else None
        if body is None:
            body = self._anew(rest, asked)
        self._keep(key, body)
        return body

    def _again(self, rest: str, bars: Sequence[str]) -> bytes | None:
        """Return the document for a line that differs in its BARs from one that was answered; None where the whole way
        is to be taken, which says what is wrong."""
        self.again.move_to_end(rest)
        again, warnings = self.again[rest]
        try:
            text = again(bars)
        except PfnmapError:
            return None
        return None if text is None else f"{text}, {warnings}".encode()

    def _anew(self, rest: str, asked: Mapping[str, Any]) -> bytes:
        said, meta = dict(self.job.said), dict(self.job.meta)
        plugin_values = {name: dict(values) for name, values in meta.items()}
        for name, value in asked.items():
            parameter = self.options.get(name.replace("-", "_"))
            if parameter is None:
                known = [word.replace("_", "-") for word in self.options]
                raise BadInput(name, f"no option of {self.job.command}{nearest(name, known)}")
            if parameter.expose_value:
                said[parameter.name] = _value(parameter, name, value)
            else:
                for values in plugin_values.values():
                    values[name.replace("_", "-")] = _value(parameter, name, value)
        self.taken.clear()
        self.warnings.clear()
        self.desk.again = None
        context = SimpleNamespace(obj=self.settings, params=said, meta={**self.meta, **plugin_values, DESK: self.desk})
        self.function(**{**said, "context": context, "batch": False, "jobs": None, "dask": None})
        warnings = [*self.taken[0].get("warnings", ()), *self.warnings]
        if self.desk.again is not None:
            self.again[rest] = self.desk.again, json.dumps({"warnings": warnings})[1:]
            if len(self.again) > _AGAIN:
                self.again.popitem(last=False)
        return json.dumps({**self.taken[0], "warnings": warnings})[1:].encode()

    def _keep(self, key: tuple[str, tuple[str, ...]], body: bytes) -> None:
        self.answers[key] = body
        self.kept += len(body)
        while len(self.answers) > _ANSWERS or (self.kept > _ANSWER_BYTES and self.answers):
            self.kept -= len(self.answers.popitem(last=False)[1])


def _are_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadInput("", f"not JSON: {error}") from None
    if not isinstance(asked, dict):
        raise BadInput("", "an object was expected, keyed by the names of options")
    return asked


def _value(parameter: Any, name: str, value: Any) -> Any:
    """Return a value of a line as the command takes it. Raises BadInput for one of another type."""
    if value is None:
        return None
    if parameter.is_flag:
        if not isinstance(value, bool):
            raise BadInput(name, f"{value!r} is neither true nor false")
        return value
    if parameter.multiple:
        if isinstance(value, str):
            value = [value]
        if not _are_texts(value):
            raise BadInput(name, "a list of texts was expected")
        return value
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadInput(name, f"{value!r} is neither a text nor a whole number")
    return str(value)
