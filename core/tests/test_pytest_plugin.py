"""The kit under pytest: found through its entry point, one test a check and machine, expected failures strict."""

from __future__ import annotations

from textwrap import dedent

import pytest

pytest_plugins = ["pytester"]

FIVE_LINES = """
    from pfnmap.testing import ArchConformance
    from pfnmap.testing.plain import Plain

    class TestConformance(ArchConformance):
        arch = Plain
"""


def run(pytester: pytest.Pytester, text: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(test_conformance=dedent(text))
    # A process of its own: numpy cannot be loaded twice, and pytester forgets what was.
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-rA", *arguments)


def test_five_lines_are_a_test_file(pytester: pytest.Pytester):
    result = run(pytester, FIVE_LINES, "-k", "not mm-life and not words")
    outcomes = result.parseoutcomes()
    assert outcomes.keys() == {"passed", "deselected"}
    assert outcomes["passed"] > 200
    result.stdout.fnmatch_lines(["PASSED *test_conformance[[]7.3.4-special-survives:pmd[]]"])


WRONG = """
    from pfnmap import hookimpl
    from pfnmap.testing import ArchConformance
    from pfnmap.testing.plain import Plain

    class Wrong(Plain):
        @hookimpl
        def pmd_pgprot(self, pmd):
            return pmd

    class TestConformance(ArchConformance):
        arch = Wrong
        expected_failures = {EXPECTED}
"""


def test_a_failure_says_what_and_why_without_a_traceback(pytester: pytest.Pytester):
    result = run(pytester, WRONG.replace("EXPECTED", ""), "-k", "7.3.4-pgprot-less-pfn")
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(
        [
            "plain on 7.3.4: pgprot-less-pfn:pmd: pmd_pgprot is *, it keeps * of the address*",
            "(pgprot-less-pfn: pgprot is *",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_an_expected_failure_is_xfail_with_its_reason_and_strict(pytester: pytest.Pytester):
    expected = '"pgprot-less-pfn:pmd@7.3.4": "as the C does", "idempotent:pte@7.3.4": "not true"'
    result = run(pytester, WRONG.replace("EXPECTED", expected), "-k", "7.3.4-pgprot-less-pfn or 7.3.4-idempotent")
    assert result.parseoutcomes()["xfailed"] == 1
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(["XFAIL *pgprot-less-pfn:pmd* - as the C does", "FAILED *idempotent:pte*"])
    result.stdout.fnmatch_lines(["*XPASS(strict)*not true*"])


def test_a_misspelt_expectation_stops_the_run_with_one_line(pytester: pytest.Pytester):
    result = run(pytester, WRONG.replace("EXPECTED", '"idempotnt": "why"'))
    assert result.ret == pytest.ExitCode.USAGE_ERROR or result.parseoutcomes().get("errors")
    (pytester.path / "out").write_text(result.stdout.str() + result.stderr.str())
    assert "idempotnt" in (pytester.path / "out").read_text()


def test_what_waits_is_skipped_and_what_is_unwritten_fails_with_its_documentation(pytester: pytest.Pytester):
    text = """
        from pfnmap import Unwritten
        from pfnmap.testing import ArchConformance
        from pfnmap.testing.plain import Plain

        class Unfinished(Plain):
            def pmd_pfn(self, pmd):
                raise Unwritten("pmd_pfn")

        class TestConformance(ArchConformance):
            arch = Unfinished
    """
    result = run(pytester, text, "-k", "written or 7.3.4")
    outcomes = result.parseoutcomes()
    assert outcomes["failed"] == 1
    assert outcomes["skipped"] > 10
    result.stdout.fnmatch_lines(
        [
            "pmd_pfn is still to be written (docs/hooks.md#pmd_pfn): Return the page frame number of a PMD leaf.",
            "SKIPPED * waits for pmd_pfn, which is still to be written",
            "FAILED *test_conformance[[]written-pmd_pfn[]]*",
        ]
    )


def test_vectors_are_read_beside_the_test_file_and_disagreements_are_told(pytester: pytest.Pytester):
    (pytester.path / "rows.json").write_text(
        """{"schema": "pfnmap-vectors/1", "kernel": "7.3.4", "arch": "plain", "machine": {"config": {}, "cpu": {}},
        "constants": {}, "defined": {"pte_write": "arch"},
        "vectors": {"pte_write": [["0x4", "0x1"], ["0x4", "0x0"]]}}"""
    )
    text = """
        from pfnmap.testing import ArchConformance
        from pfnmap.testing.plain import Plain

        class TestConformance(ArchConformance):
            arch = Plain
            vectors = ["rows.json"]
    """
    result = run(pytester, text, "-k", "vectors")
    assert result.parseoutcomes()["failed"] == 2
    result.stdout.fnmatch_lines(
        [
            "plain: vectors-rows-ints: 1 of 2 rows disagree: pte_write(0x4) is 0x1, the kernel's is 0x0",
            "FAILED *vectors-rows-arrays*",
        ]
    )


def test_a_driver_class_is_tested_as_a_driver(pytester: pytest.Pytester):
    text = """
        from pfnmap.testing import DriverConformance
        from pfnmap.testing.bar_driver import BarDriver

        class TestConformance(DriverConformance):
            driver = BarDriver
    """
    assert run(pytester, text, "-k", "plain and actions").parseoutcomes()["passed"] == 4


def test_pytest_alone_imports_neither_the_kit_nor_numpy(pytester: pytest.Pytester):
    pytester.makepyfile(
        """
        import sys

        def test_nothing():
            assert "pfnmap.testing.pytest_plugin" in sys.modules
            assert not {"numpy", "pfnmap.testing.kit", "pfnmap.kconfig_parser"} & sys.modules.keys()
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
    assert result.parseoutcomes() == {"passed": 1}
