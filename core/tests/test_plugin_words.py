"""The core names no plugin, but for the documented defaults."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pfnmap

CORE = Path(pfnmap.__file__).parent
WORDS = (
    *("vfio", "vfio_pci", "kvm", "qemu", "iommufd", "type1", "nvgrace", "acrn"),
    *("x86_64", "arm64", "riscv64", "s390", "powerpc64", "loongarch64", "sparc64"),
)
AT_MOST = 6
"""The documented defaults: the architecture x86_64 and the driver vfio_pci."""

_ANY = "|".join(sorted(WORDS, key=len, reverse=True))
_WORD = re.compile(rf"(?<![A-Za-z0-9])(?:{_ANY})(?![A-Za-z0-9])", re.IGNORECASE)
_SKIPPED = frozenset({tokenize.COMMENT, tokenize.ENCODING, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT})


def docstrings(source: str) -> set[tuple[int, int]]:
    """Return where the strings stand that are statements of their own: docstrings, and those behind an attribute."""
    return {
        (node.value.lineno, node.value.col_offset)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }


def plugin_words(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and first word of each name and string literal that has a plugin's word in it."""
    documentation = docstrings(source)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in _SKIPPED or token.start in documentation:
            continue
        if match := _WORD.search(token.string):
            yield token.start[0], match[0]


def test_docstrings_and_comments_are_not_counted_and_names_and_literals_are():
    source = '''
"""About vfio."""
x = 1  # of kvm
"""An attribute of qemu."""
def has_vfio_pci(arm64="x86_64 or s390x"):
    """Of acrn."""
    return f"type1 {x}", "nvgrace-huge-fault", "s390x"
'''
    assert sorted(plugin_words(source)) == [
        (5, "arm64"),
        (5, "vfio_pci"),
        (5, "x86_64"),
        (7, "nvgrace"),
        (7, "type1"),
    ]


def test_the_core_names_no_plugin_but_the_defaults():
    found = [
        f"{path.relative_to(CORE)}:{line}: {word}"
        for path in sorted(CORE.rglob("*.py"))
        for line, word in plugin_words(path.read_text())
    ]
    assert len(found) <= AT_MOST, f"{len(found)} words:\n" + "\n".join(found)
