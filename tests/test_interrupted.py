"""Ctrl-C at the moments when there is nothing to tell, and where many scenarios are run: 130, a line at most."""

from __future__ import annotations

import pytest

HEARS = "import os, signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""A job in the background is started with it ignored."""
INTERRUPT = "os.kill(os.getpid(), signal.SIGINT)"

AT_IMPORT = f"""{HEARS}
class Finder:
    def find_spec(self, name, *rest):
        if name == "pfnmap.cli":
            {INTERRUPT}
sys.meta_path.insert(0, Finder())
from pfnmap_command import main
main()
"""
BEFORE_THE_COMMAND = f"""{HEARS}
import pfnmap.cli
pfnmap.cli.main = lambda: {INTERRUPT}
from pfnmap_command import main
main()
"""
AFTER_ALL = f"""{HEARS}
import atexit
from pfnmap_command import main
atexit.register(lambda: {INTERRUPT})
main()
"""


@pytest.mark.parametrize("code", [AT_IMPORT, BEFORE_THE_COMMAND], ids=["at import", "before the command"])
def test_interrupted_before_it_begins_it_says_nothing(process, code):
    done = process("changes", code=code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_interrupted_when_all_is_done_it_is_done(process):
    done = process("--version", code=AFTER_ALL)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("pfnmap ")


MANY = f"""{HEARS}
from pfnmap_command import main
from pfnmap.run import Run
step = Run.step
def stepped(run, one):
    if one.op == "touch":
        {INTERRUPT}
    return step(run, one)
Run.step = stepped
main()
"""


def test_interrupted_among_scenarios_it_tells_of_those_before_in_a_line(process, root):
    names = ("zap-keeps-tables", "s390-pci-mmio")
    done = process("run", *(str(root / "examples" / "scenarios" / f"{name}.toml") for name in names), code=MANY)
    assert done.returncode == 130
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("pfnmap: warning: interrupted after ")
