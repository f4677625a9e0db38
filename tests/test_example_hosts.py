"""The devices in examples/lspci are those of the posted BARs, and examples/README.md tells about every file."""

import gzip
import json
from pathlib import Path

import pytest

from pfnmap.host.input import read_input

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples" / "lspci").iterdir())
POSTED = json.loads(gzip.decompress((ROOT / "core" / "tests" / "data" / "bars.json.gz").read_bytes()))


def facts(bars):
    return [(bar["index"], bar["size_bytes"], bar["address"], bar["bits"]) for bar in bars]


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.name for path in EXAMPLES])
def test_example_has_the_bars_of_its_source(path):
    for device in read_input(path).devices:
        found = [(bar.index, bar.size, f"{bar.phys:#x}", bar.bits) for bar in device.bars]
        (entry,) = [e for e in POSTED if device.bdf.endswith(e["bdf"]) and facts(e["bars"]) == found]
        assert device.pci_id == entry["pci_id"]
        for bar, posted in zip(device.bars, entry["bars"], strict=True):
            assert bar.prefetchable is posted["prefetchable"]
            assert bar.disabled is posted.get("disabled", False)
            assert bar.index_inferred is entry["index_inferred"]


@pytest.mark.parametrize("folder", ["lspci", "configs"])
def test_readme_names_every_file(folder):
    text = (ROOT / "examples" / "README.md").read_text()
    assert [path.name for path in (ROOT / "examples" / folder).iterdir() if f"`{path.name}`" not in text] == []
