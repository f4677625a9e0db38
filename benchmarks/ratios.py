"""Speed, as ratios within one run: each measure against a limit or a peer that the same interpreter sets.

    python benchmarks/ratios.py [NAME ...] [--smallest] [--repeat N] [--json FILE]

prints a row for each measure and size: CPU seconds of the work and of its peer (medians), their ratio, and the ratio
that is the aim. Nothing fails because of a time.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measures import MEASURES, Measure

REPEAT = 5


def rows(measure: Measure, sizes: int, repeat: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each of the first `sizes` sizes of a measure."""
    for label, size in list(measure.sizes.items())[:sizes]:
        pairs = [measure.seconds(size) for _ in range(repeat)]
        work, peer = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
        found = {"measure": measure.name, "size": label, "seconds": work, "peer": peer, "ratio": work / peer}
        yield {**found, "aim": measure.aim, "text": measure.text}


def main() -> int:
    """Print the table."""
    known = {measure.name: measure for measure in MEASURES}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which measures: {', '.join(known)}")
    parser.add_argument("--smallest", action="store_true", help="the first size of each, once")
    parser.add_argument("--repeat", type=int, default=REPEAT)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    options = parser.parse_args()
    if unknown := set(options.names) - known.keys():
        parser.error(f"no measure {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    found = []
    print(f"{'measure':18} {'size':>8} {'seconds':>10} {'peer':>10} {'ratio':>8}  aim")
    for measure in MEASURES:
        if options.names and measure.name not in options.names:
            continue
        if measure.lacks:
            print(f"{measure.name:18} left out: {measure.lacks}")
            continue
        for row in rows(measure, 1 if options.smallest else 3, 1 if options.smallest else options.repeat):
            found.append(row)
            sign = "<=" if measure.at_most else ">="
            print(
                f"{row['measure']:18} {row['size']:>8} {row['seconds']:10.6f} {row['peer']:10.6f} {row['ratio']:8.3g}"
                f"  {sign} {row['aim']:g}",
                flush=True,
            )
    if options.json:
        machine = {"python": platform.python_version(), "machine": platform.machine()}
        options.json.write_text(json.dumps({**machine, "rows": found}, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
