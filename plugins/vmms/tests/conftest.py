"""Lets the tests import asking.py, however pytest imports this directory."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
