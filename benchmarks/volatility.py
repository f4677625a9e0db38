"""volatility3's Intel layer over the page tables of a machine, as a peer of the walk (`pip install volatility3`)."""

from __future__ import annotations

import importlib.util
from typing import Any

from pfnmap.contract.vma import MmStruct

__all__ = ["LACKS", "intel_layer"]

LACKS = "" if importlib.util.find_spec("volatility3") else "volatility3 is not installed"


def intel_layer(mm: MmStruct) -> Any:
    """Return a layer that walks a copy of the tables of an x86_64 process."""
    from volatility3.framework.contexts import Context
    from volatility3.framework.layers.intel import Intel32e
    from volatility3.framework.layers.physical import BufferDataLayer

    tables = mm.machine.phys.tables
    memory = bytearray(max(address + words.nbytes for address, words in tables.items()))
    for address, words in tables.items():
        memory[address : address + words.nbytes] = words.tobytes()
    context = Context()
    context.add_layer(BufferDataLayer(context, "memory", "memory", bytes(memory)))
    context.config["process.memory_layer"] = "memory"
    context.config["process.page_map_offset"] = mm.tables.pgd_pa
    return Intel32e(context, "process", "process")
