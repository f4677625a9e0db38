"""Builds the guest's init for each architecture, as part of the wheel.

It is one static program, compiled with ziglang's clang and musl, which are build requirements of this distribution
alone. The same sources give the same bytes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TARGETS = {"x86_64": "x86_64-linux-musl", "arm64": "aarch64-linux-musl", "riscv64": "riscv64-linux-musl"}
SOURCES = ("events.c", "init.c", "kvm.c", "ops.c", "touch.c", "vfio.c", "wire.c")
FLAGS = ("-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror", "-fno-ident")


def build(arch: str, sources: Path, output: Path) -> None:
    """Compile the guest's init of an architecture. Raises CalledProcessError where the compiler does not."""
    output.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", TARGETS[arch], *FLAGS, "-o", str(output), *SOURCES]
    subprocess.run(command, cwd=sources, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": "0"})


class GuestBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts ``guests/init-ARCH`` into the wheel, and the project's example scenarios into wheel and sdist."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Copy the examples, and build what is older than its sources."""
        root = Path(self.root)
        for example in sorted((root.parent / "examples/scenarios").glob("*.toml")):  # an sdist brings its own
            scenarios = root / "src/pfnmap_verify/scenarios"
            scenarios.mkdir(exist_ok=True)
            shutil.copyfile(example, scenarios / example.name)
        if self.target_name != "wheel":
            return
        sources = root / "guest"
        newest = max(path.stat().st_mtime for path in (*sources.iterdir(), Path(__file__)))
        for arch in TARGETS:
            output = root / "src/pfnmap_verify/guests" / f"init-{arch}"
            if not output.exists() or output.stat().st_mtime < newest:
                build(arch, sources, output)
        build_data["pure_python"] = True
