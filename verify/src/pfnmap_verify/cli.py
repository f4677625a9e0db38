"""``pfnmap verify``: a real kernel against the model."""

from __future__ import annotations

import gzip
import json as _json
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pfnmap.cli.options import JsonOption, KernelOptions, Settings, kernel_options, linked
from pfnmap.cli.terminal import complain, heading, print_json, show, styled, table
from pfnmap.errors import BadInput, Refused
from pfnmap.output import check_writable

if TYPE_CHECKING:
    from pfnmap.kernel import Kernel
    from pfnmap_verify.machine import PciTestdev
    from pfnmap_verify.recorder import Program
    from pfnmap_verify.session import Session
    from pfnmap_verify.subject import Subject
    from pfnmap_verify.verdicts import Verdict


def _option(name: str, metavar: str | None, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text, show_default=False)


@kernel_options("cpu", "page_size", "set_")
def command(
    context: typer.Context,
    kernel: KernelOptions,
    image: Annotated[
        str | None, _option("--kernel", "IMAGE", "The kernel: bzImage, Image, Image.gz or vmlinux.")
    ] = None,
    modules: Annotated[
        str | None, _option("--modules", "DIR", "Its modules, where they are not built in: /lib/modules/RELEASE.")
    ] = None,
    deb: Annotated[
        list[str] | None, _option("--deb", "FILE", "Debian packages with kernel and modules; repeatable.")
    ] = None,
    rpm: Annotated[
        list[str] | None, _option("--rpm", "FILE", "RPM packages with kernel and modules; repeatable.")
    ] = None,
    suite: Annotated[str | None, _option("--suite", "core|full", "What is run; core if nothing is said.")] = None,
    scenario: Annotated[
        list[str] | None, _option("--scenario", "FILE", "A scenario, or the programs of a recording; repeatable.")
    ] = None,
    random: Annotated[
        int | None, typer.Option("--random", metavar="N", min=1, help="So many programs drawn at random.")
    ] = None,
    seed: Annotated[int | None, _option("--seed", "S", "What they are drawn from; 0 if nothing is said.")] = None,
    record: Annotated[str | None, _option("--record", "OUT.json.gz", "Write what was recorded.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write onto a file that exists.")] = False,
    limit: Annotated[float, typer.Option("--time-limit", metavar="SECONDS", help="For all of it.")] = 3600.0,
    ktap: Annotated[bool, typer.Option("--ktap", help="Print KTAP, as kernel CI reads it.")] = False,
    junit: Annotated[str | None, _option("--junit", "FILE.xml", "Write the verdicts as JUnit's XML.")] = None,
    json: JsonOption = False,
) -> int:
    """Boot a real kernel in QEMU, drive vfio-pci through scenarios, and compare with the model."""
    from pfnmap_verify.judge import judged, shrunk
    from pfnmap_verify.progress import session_progress
    from pfnmap_verify.session import Session, run_session

    settings: Settings = context.obj
    registry = settings.registry
    for path in (record, junit):
        if path is not None:
            check_writable(path, force=force)
    if seed is not None and random is None:
        raise BadInput("--seed", "goes with --random")
    with ExitStack() as stack, _terminated():
        subject = _subject(kernel, image, modules, deb or [], rpm or [], stack)
        model = linked(subject.spec, registry)
        programs, devices = _programs(suite, scenario or [], random, seed, model)
        without_kvm = ""
        if any(program.needs_kvm for program in programs):
            try:
                subject = subject.with_kvm()
            except Refused as refusal:
                without_kvm = str(refusal)
        if not (json or ktap):
            heading(subject.describe(model))
        with session_progress(len(programs), subject.image.uname) as progress:
            session = Session(subject, model, devices, without_kvm=without_kvm, seconds=limit, progress=progress)
            error = run_session(session, programs)
        unwritten = _record(session, record)
        if error is not None and not session.records:
            raise error
        verdicts = judged(session, registry)
        if random is not None and error is None:
            verdicts = shrunk(session, programs, verdicts, registry)
        _report(session, verdicts, ktap=ktap, json=json, junit=junit)
        if (ended := error or unwritten) is not None:
            raise ended
    return _status(verdicts)


@contextmanager
def _terminated() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does, so that nothing is left behind, also in a job of a shell that ignores Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _record(session: Session, path: str | None) -> Refused | None:
    """Write what was recorded; return why it could not be, since that does not cost the verdicts."""
    if path is None or not session.records:
        return None
    try:
        _write(path, gzip.compress(_json.dumps(session.document()).encode(), mtime=0))
    except Refused as refusal:
        return refusal
    return None


def _write(path: str, data: bytes) -> None:
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        if Path(path).is_file():
            Path(path).unlink()
        raise Refused("verify", f"{path} cannot be written: {error.strerror}") from None


def _subject(
    kernel: KernelOptions, image: str | None, modules: str | None, deb: list[str], rpm: list[str], stack: ExitStack
) -> Subject:
    """Return the kernel that is meant, unpacked where it is in packages."""
    from pfnmap_verify.image import read_image
    from pfnmap_verify.machine import machine_of
    from pfnmap_verify.package import unpack
    from pfnmap_verify.qemu import find_qemu
    from pfnmap_verify.subject import Subject

    said = [name for name, value in (("--kernel", image), ("--deb", deb), ("--rpm", rpm)) if value]
    if len(said) != 1:
        also = f", not {' and '.join(said)}" if said else ""
        raise BadInput("verify", f"one of --kernel, --deb and --rpm says which kernel{also}")
    try:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pfnmap-verify-")))
    except OSError as error:
        raise Refused("verify", f"no temporary directory: {error.strerror}") from None
    spec = kernel.over()
    if image is not None:
        read, root = read_image(Path(image)), Path(modules) if modules else None
    else:
        packaged = unpack(deb or rpm, "deb" if deb else "rpm", directory)
        read, root = read_image(packaged.image), Path(modules) if modules else packaged.root
        if spec.config is None and packaged.config is not None:
            spec = replace(spec, config=str(packaged.config))
    if kernel.arch not in (None, read.arch):
        raise BadInput(str(read.path), f"is a kernel of {read.arch}, not of {kernel.arch}")
    if spec.config is None and read.config is not None:
        _write(str(directory / "IKCONFIG"), read.config)
        spec = replace(spec, config=str(directory / "IKCONFIG"))
    machine = machine_of(read.arch)
    find_qemu(machine)
    return replace(Subject.prepare(read, machine, root, spec), unpacked=directory)


def _programs(
    suite: str | None, scenarios: list[str], random: int | None, seed: int | None, model: Kernel
) -> tuple[list[Program], Sequence[PciTestdev]]:
    """Return what is to be run, and the devices that it needs; what the model expects to oops is to boot alone."""
    from pfnmap_verify.compare import kills
    from pfnmap_verify.draw import draw
    from pfnmap_verify.machine import DEVICES
    from pfnmap_verify.programs import read_programs
    from pfnmap_verify.suites import suite as suite_named

    if sum((suite is not None, bool(scenarios), random is not None)) > 1:
        raise BadInput("verify", "one of --suite, --scenario and --random says what is run")
    programs: list[Program] = []
    devices: dict[str, PciTestdev] = {}
    for path in scenarios:
        found, needed = read_programs(path)
        for device in needed:
            if devices.setdefault(device.name, device) != device:
                raise BadInput(path, f"device {device.name} is another one than in the files before it")
        programs += found
    if not scenarios:
        devices = {device.name: device for device in DEVICES}
        programs = (
            draw(seed or 0, random, model)
            if random is not None
            else suite_named(suite or "core", model.arch.name, model.geometry.PAGE_SIZE)
        )
    alone = [replace(p, own_boot=p.own_boot or kills(model, p, [*devices.values()])) for p in programs]
    return alone, [*devices.values()]


def _report(session: Session, verdicts: Sequence[Verdict], *, ktap: bool, json: bool, junit: str | None) -> None:
    from pfnmap_verify import verdicts as forms

    image = session.subject.image
    if junit is not None:
        _write(junit, forms.junit(verdicts, session.elapsed, f"pfnmap verify {image.uname}").encode())
    booted = {"release": image.uname, "accel": "tcg", "boots": session.boots, "seconds": round(session.elapsed, 1)}
    if json:
        print_json(
            "verify", {"kernel": session.subject.describe(session.kernel), "booted": booted, **forms.as_json(verdicts)}
        )
    elif ktap:
        show(*forms.ktap(verdicts))
    else:
        _show(booted, verdicts)
    for log in session.lost_logs:
        complain(f"serial log of a guest that failed: {log}")


_STYLES = {"agree": "green", "differ": "bold red", "oops": "bold red", "lost": "bold red", "refused": "yellow"}


def _show(booted: dict[str, Any], verdicts: Sequence[Verdict]) -> None:
    from pfnmap_verify.verdicts import details

    rows = [(verdict.id, styled(verdict.outcome, _STYLES[verdict.outcome])) for verdict in verdicts]
    show("", table(("record", "verdict"), rows), "")
    for verdict in verdicts:
        if verdict.outcome != "agree":
            show(
                styled(f"{verdict.id}: {verdict.outcome}", _STYLES[verdict.outcome]),
                *(f"  {line}" for line in details(verdict)),
            )
    agree = sum(verdict.outcome == "agree" for verdict in verdicts)
    show(
        styled(f"{agree} of {len(verdicts)} records agree", "bold"),
        f"{booted['release']}: {booted['boots']} boot{'s' * (booted['boots'] > 1)}, {booted['seconds']} s",
    )


def _status(verdicts: Sequence[Verdict]) -> int:
    """Return 1 where something differs, 3 where something could not be asked, else 0."""
    outcomes = {verdict.outcome for verdict in verdicts}
    if outcomes & {"differ", "oops", "lost"}:
        return 1
    return 3 if "refused" in outcomes or not verdicts else 0
