"""Lets the tests import virtual_machine.py, however pytest imports this directory."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
