"""A plan as a table made for reading: a block a BAR, a row a placement, and why not larger in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from pfnmap.report.text import Table, Text
from pfnmap.sizes import format_size, rounded_size

if TYPE_CHECKING:
    from pfnmap.plan import Blocked, Costs, LeafLevel, MappingPlan, Plan, Undetermined

__all__ = ["LEVEL_STYLE", "costs_row", "render"]

_HEADER: Final = ("placement", "VA", "leaves", "faults", "tables", "DMA cold", "DMA warm")
_GUEST_HEADER: Final = ("guest leaves", "guest faults")
_INDENT: Final = 2
_NUMBERS: Final = (*_HEADER[3:], "guest faults")
_WHAT_TELLS: Final = (
    "What tells: pfnmap changes --log, of the kernel's changelog (rpm -q --changelog, apt changelog, git log); "
    "pfnmap log, of its debug lines; pfnmap verify, of its image. Then --with or --without settles it."
)
_LEGEND: Final = (
    "faults: calls of the driver's handler when every page is touched once in ascending order. "
    "tables: page-table memory."
)
LEVEL_STYLE: Final[Mapping[str, str]] = {"pud": "green", "pmd": "cyan", "pte": "yellow"}
_LEVELS: Final[tuple[LeafLevel, ...]] = ("pud", "pmd", "pte")

Row = tuple[Text, ...]


def render(plan: Plan, names: Mapping[str, str] | None = None, *, legend: bool = True) -> list[Text | Table]:
    """Return what `pfnmap plan` prints below its heading, in order; colours show on a terminal only.

    `names`: what devices are called, by their PCI address. `legend`: say what the columns are.
    """
    blocks = [
        list(block) for _, block in groupby(plan.mappings, key=lambda m: replace(m.request, va=None, policy=None))
    ]
    columns = _HEADER + (_GUEST_HEADER if any(mapping.guest for mapping in plan.mappings) else ())
    rows = [[_padded(row, len(columns)) for mapping in block for row in _rows(mapping)] for block in blocks]
    texts = (columns, *([cell.plain for cell in row] for table in rows for row in table))
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    parts: list[Text | Table] = []
    device: str | None = ""
    for block, table_rows in zip(blocks, rows, strict=True):
        first = block[0]
        if first.device and first.device != device:
            title = Text(f"\n{first.device}", "bold underline")
            parts.append(title.append(_called(first.device, names), "not underline"))
        device = first.device
        parts.append(Text(f"\n{_title(first)}", "bold"))
        if table_rows:
            parts.append(Table(columns, table_rows, _NUMBERS, widths=widths, ruled=False, indent=_INDENT))
        parts += _sentences(block)
    parts += _notes(blocks)
    parts += _undetermined(plan)
    if legend and any(rows):
        parts.append(Text(f"\n{' '.join((_LEGEND, *plan.legends))}", "dim"))
    return parts


def _called(device: str, names: Mapping[str, str] | None) -> str:
    return f"  {names[device]}" if names and device in names else ""


def _title(mapping: MappingPlan) -> str:
    asked = mapping.request
    size = format_size(asked.bar_size)
    where = f"of {' or '.join(asked.candidates)}" if asked.candidates else f"at {asked.phys:#x}"
    title = f"BAR {asked.bar}: {size}{' bytes' if size.isdigit() else ''} {where}"
    if asked.offset or (asked.length or 0) < asked.bar_size:
        title += f", {asked.length:#x} bytes from offset {asked.offset:#x}"
    return title


def _padded(row: Row, columns: int) -> Row:
    """A row with empty cells for a guest that it does not have."""
    return (*row, *(Text("") for _ in range(columns - len(row))))


def _rows(mapping: MappingPlan) -> list[Row]:
    """The row of a placement, and below it the same before 6.12 where that differs."""
    if not mapping.runs:
        return []
    sizes = mapping.sizes
    guest = _guest(mapping)
    rows = [(Text(_placement(mapping)), Text(f"{mapping.va:#x}"), *costs_row(mapping.costs, sizes), *guest)]
    if mapping.before != mapping.costs:
        before = (Text("  before 6.12"), Text(""), *costs_row(mapping.before, sizes))
        rows.append(tuple(cell.in_style("dim") for cell in before))
    return rows


def _placement(mapping: MappingPlan) -> str:
    """Who placed it, and which area of what was asked for it is."""
    name, area, asked = mapping.policy or "as given", mapping.area, mapping.request
    if area is None or (area.offset, area.length) == (asked.offset, asked.length):
        return name
    return f"{name} {area.offset:#x}+{format_size(area.length)}"


def costs_row(costs: Costs, sizes: Mapping[LeafLevel, int]) -> Row:
    """Return the cells of what a mapping costs: leaves, faults, tables, a cold and a warm DMA map."""
    faults = Text(f"{costs.driver_calls:,}")
    cold = warm = Text("-")
    if dma := costs.dma_map:
        cold, warm = (Text(dma.error or f"{number:,}") for number in (dma.cold_walks, dma.warm_walks))
    present = [level for level in _LEVELS if costs.counts[level]]
    leaves = Text(_leaves(costs.counts, sizes), LEVEL_STYLE[present[-1]] if present else "")
    return (leaves, faults, Text(rounded_size(costs.table_bytes)), cold, warm)


def _guest(mapping: MappingPlan) -> Row:
    if mapping.guest is None:
        return ()
    counts = mapping.guest.counts
    present = [level for level in _LEVELS if counts[level]]
    leaves = Text(_leaves(counts, mapping.sizes), LEVEL_STYLE[present[-1]] if present else "")
    return (leaves, Text(f"{mapping.guest.faults:,}"))


def _leaves(counts: Mapping[LeafLevel, int], sizes: Mapping[LeafLevel, int]) -> str:
    return " + ".join(f"{counts[level]:,}x{format_size(sizes[level])}" for level in _LEVELS if counts[level])


def _sentences(block: Sequence[MappingPlan]) -> list[Text]:
    """What is wrong and why not larger; said once where all placements share it."""
    said: dict[tuple[str, str], list[str]] = {}
    for mapping in block:
        warnings = (*mapping.warnings, *(mapping.guest.warnings if mapping.guest else ()))
        lines = [("bold red", text) for text in warnings]
        lines += [("", text) for text in _why(mapping)]
        lines += [("", text) for text in (mapping.guest.notes if mapping.guest else ())]
        for line in dict.fromkeys(lines):
            said.setdefault(line, []).append(_placement(mapping))
    sentences = [
        Text(text if len(names) == len(block) else f"{', '.join(names)}: {text}", style, _INDENT)
        for (style, text), names in said.items()
    ]
    unmapped = dict.fromkeys((mapping.policy, part) for mapping in block for part in mapping.placed.unmapped)
    return sentences + [
        Text(
            f"{policy}: not mapped: {format_size(part.length)} from offset {part.offset:#x}: {part.reason}", "", _INDENT
        )
        for policy, part in unmapped
    ]


def _why(mapping: MappingPlan) -> Iterable[str]:
    """Say of each run why it is not mapped at the next larger level."""
    if not mapping.runs:
        yield from (f"cannot be mapped: {row.detail}" for row in mapping.blocked[:1])
        return
    for run in mapping.runs:
        row = next((row for row in mapping.blocked if row.va == run.va), None)
        if row is not None:
            where = "" if len(mapping.runs) == 1 else f"{run.va:#x}-{run.end:#x} "
            yield f"{where}not {_size(row, mapping)}: {row.detail}"
    dma = mapping.costs.dma_map
    for reason in dma.reasons if dma else ():
        yield f"a DMA map walks {reason.walks:,} times more than it had to: {reason.detail}"


def _size(row: Blocked, mapping: MappingPlan) -> str:
    return format_size(mapping.sizes[row.level])


def _notes(blocks: Sequence[Sequence[MappingPlan]]) -> Iterable[Text]:
    """What the answer hangs on, each once; of which BARs where several say different things."""
    said: dict[str, list[str]] = {}
    for block in blocks:
        for note in dict.fromkeys(note for mapping in block for note in mapping.notes):
            said.setdefault(note, []).append(_name(block[0]))
    for note, names in said.items():
        whose = "" if len(said) == 1 or len(names) == len(blocks) else f"{', '.join(names)}: "
        yield Text(f"\n{whose}{note}.")


def _name(mapping: MappingPlan) -> str:
    return f"BAR {mapping.bar}" + (f" of {mapping.device}" if mapping.device else "")


def _undetermined(plan: Plan) -> Iterable[Text | Table]:
    for row in plan.undetermined:
        given = f" (with {', '.join(row.given)})" if row.given else ""
        yield Text(f"\nIt is not known whether {plan.kernel['release']} has {row.change}{given}:", "bold yellow")
        for mapping, yes, no in _both_ways(plan, row):
            sides = (f"{label} {_answer(side, mapping)}" for label, side in (("with it", yes), ("without", no)))
            yield Text(f"{_name(mapping)}, {_placement(mapping)}: {'; '.join(sides)}", "", _INDENT)
    if plan.undetermined:
        yield Text(f"\n{_WHAT_TELLS}")


def _both_ways(plan: Plan, row: Undetermined) -> Iterable[tuple[MappingPlan, Any, Any]]:
    sides = (row.if_yes["mappings"], row.if_no["mappings"])
    return ((m, yes, no) for m, yes, no in zip(plan.mappings, *sides, strict=True) if yes != no)


def _answer(answer: Mapping[str, Any], mapping: MappingPlan) -> str:
    dma = answer["dma_map"]
    leaves = _leaves(answer["counts"], mapping.sizes)
    walks = "nothing mapped for DMA"
    if dma:
        walks = f"{dma['cold']['walks']:,} / {dma['warm']['walks']:,} DMA walks"
        if dma.get("error"):
            walks = f"DMA of BARs by {dma['by'] or 'nothing'}"
    faults = f"{answer['driver_calls']:,} fault" + ("s" if answer["driver_calls"] != 1 else "")
    return f"{leaves}, {faults}, {rounded_size(answer['table_bytes'])} of page tables, {walks}"
