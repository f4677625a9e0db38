"""``python -m pfnmap_verify``: the command alone."""

from __future__ import annotations

import sys

from pfnmap.cli import app, main
from pfnmap_verify.cli import command

app.command("verify")(command)
sys.argv.insert(1, "verify")
main()
