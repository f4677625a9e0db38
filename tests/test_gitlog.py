"""Changes read off a git log; the logs under data/changes were written for the purpose."""

import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from pfnmap.errors import BadInput, Unknown
from pfnmap.host.gitlog import Finding, LogReport, read_gitlog, read_gitlog_file
from pfnmap.release import parse_release, upstream_changes, write_profile

LOGS = Path(__file__).parent / "data" / "changes"
THP = "e384abeb559d10d6505aec053ede9368d81d4c71"
ALIGN = "c1d9dac0db168198b6f63f460665256dedad9b6e"
THP_SUBJECT = "mm/huge_memory: bypass THP tuneables for huge pfnmap mappings"


def commit(id: str, subject: str, body: str = "") -> str:
    return f"{id}\n{subject}\n{body}\n"


def own(digit: str) -> str:
    return digit * 40


def read(text: str | bytes, base: str | None = None) -> LogReport:
    return read_gitlog(io.BytesIO(text.encode() if isinstance(text, str) else text), "log", base)


def of(report: LogReport, change: str) -> Finding:
    return next(finding for finding in report.findings if finding.change == change)


def verdict(text: str, change: str, base: str | None = None) -> str:
    return of(read(text, base), change).verdict


def line_of(file: str, start: str) -> int:
    return next(n for n, line in enumerate((LOGS / file).read_text().splitlines(), 1) if line.startswith(start))


@pytest.fixture
def distribution() -> LogReport:
    return read_gitlog_file(LOGS / "distribution.log")


# a distribution's tree


@pytest.mark.parametrize(
    ("change", "expected", "line"),
    [
        ("thp-bypass-pfnmap", "present", f"commit {THP} upstream."),
        ("riscv-huge-pfnmap", "present", "(cherry picked from"),
        ("nvgrace-huge-fault", "present", "commit 9db65489b872"),
        ("follow-addr-mask", "present", "a1a1"),
        ("vfio-align-fault-to-order", "reverted", "a2a2"),
        ("vfio-unaligned-pfn-fallback", "present", "aaaa"),
        ("huge-pfnmap", "present", "aaaa"),
    ],
)
def test_a_finding_points_at_the_line_that_says_so(distribution: LogReport, change: str, expected: str, line: str):
    finding = of(distribution, change)
    assert finding.verdict == expected
    assert finding.line == line_of("distribution.log", line)


def test_a_change_that_is_only_talked_about_is_not_there(distribution: LogReport):
    assert of(distribution, "pat-pfnmap-track").verdict == "absent"


def test_a_complete_log_proves_absence_of_what_could_be_told(distribution: LogReport):
    assert distribution.complete
    assert distribution.ground == "6.12.94"
    assert of(distribution, "type1-pfnmap-batch").verdict == "absent"
    assert of(distribution, "mincore-pfnmap").verdict == "undecidable"  # no commit, no subject
    assert of(distribution, "proc-special-pmd").verdict == "undecidable"  # not known for 6.12.94


def test_a_fix_that_was_reverted_is_missing(distribution: LogReport):
    assert [(m.fix, m.fixes) for m in distribution.missing_fixes] == [("vfio-align-fault-to-order", "huge-pfnmap")]


def test_the_profile_of_a_log_is_a_release(distribution: LogReport, tmp_path: Path):
    path = tmp_path / "PROFILE.toml"
    write_profile(path, distribution.release.changes, distribution.base)
    release = parse_release(str(path))
    assert release.has("thp-bypass-pfnmap")
    assert not release.has("vfio-align-fault-to-order")
    assert release.changes["proc-special-pmd"] == "unknown"


def test_unknown_changes_of_a_log_are_assumed_absent(distribution: LogReport):
    assert "type1-dma-overflow" in distribution.release.assumed[0]
    assert "proc-special-pmd" not in distribution.release.assumed[0]  # not modelled: it alters no answer


# completeness


def test_a_truncated_log_never_proves_absence():
    report = read_gitlog_file(LOGS / "truncated.log")
    assert not report.complete
    assert {finding.verdict for finding in report.findings} == {"present", "undecidable"}
    assert of(report, "type1-pfnmap-batch").verdict == "undecidable"


def test_a_release_in_a_truncated_log_still_proves_what_it_has():
    report = read_gitlog_file(LOGS / "truncated.log")
    assert report.newest_release == "6.12.117"
    assert of(report, "follow-recheck-under-lock").verdict == "present"


@pytest.mark.parametrize("name", ["distribution.log", "truncated.log"])
def test_wherever_a_log_is_cut_nothing_becomes_absent(name: str):
    whole = (LOGS / name).read_bytes()
    for end in range(60, len(whole) - 2, 5):
        report = read(whole[:end])
        if report.ground is None:  # else the cut is right below a release
            assert "absent" not in {finding.verdict for finding in report.findings}, end


def test_a_log_that_ends_with_a_release_starts_from_it():
    log = commit(own("1"), "mm: something") + commit(own("2"), "Linux 6.12.94")
    assert read(log).ground == "6.12.94"
    assert verdict(log, "thp-bypass-pfnmap") == "absent"


def test_with_merges_a_release_at_the_end_proves_no_absence():
    log = commit(own("1"), "Merge branch 'for-linus' of vfio") + commit(own("2"), "Linux 6.13-rc1")
    assert read(log).ground is None
    assert verdict(log, "pat-pfnmap-track") == "undecidable"
    assert verdict(log, "pat-pfnmap-track", "6.13-rc1") == "absent"


def test_a_release_whose_number_is_cut_proves_nothing():
    report = read(commit(own("1"), "mm: something") + own("2") + "\nLinux 6.12.11")
    assert (report.newest_release, report.ground) == (None, None)


def test_history_down_to_the_first_commit_is_complete():
    report = read_gitlog_file(LOGS / "mainline.log")
    assert (report.complete, report.ground, report.newest_release) == (True, None, "6.12")
    assert of(report, "vfio-align-fault-to-order").verdict == "present"
    assert of(report, "follow-recheck-under-lock").verdict == "absent"
    assert [m.fix for m in report.missing_fixes] == ["follow-recheck-under-lock"]


def test_a_base_that_the_caller_names_makes_a_log_complete():
    log = commit(own("1"), "mm: something")
    assert verdict(log, "thp-bypass-pfnmap") == "undecidable"
    assert verdict(log, "thp-bypass-pfnmap", "6.12.94") == "absent"
    assert verdict(log, "thp-bypass-pfnmap", "6.12.117") == "present"
    assert verdict(log, "thp-bypass-pfnmap", "6.12.0-1-amd64") == "undecidable"
    assert verdict("", "thp-bypass-pfnmap", "6.12.94") == "absent"


def test_a_base_has_to_be_a_release():
    for base in ("banana", "PROFILE.toml"):
        with pytest.raises(Unknown, match=f"^unknown release '{base}'"):
            read("", base)


def test_the_newest_release_counts_wherever_it_stands():
    log = commit(own("1"), "Linux 6.12.9") + commit(own("2"), "Linux 6.12.10") + commit(own("3"), "Linux 6.12-rc7")
    assert read(log + commit(own("4"), "mm: something")).newest_release == "6.12.10"


# how a commit is told


@pytest.mark.parametrize(
    "body",
    [
        f"commit {THP} upstream.\n",
        f"commit {THP[:12]} upstream\n",
        f"[ Upstream commit {THP} ]\n",
        f"(cherry picked from commit {THP})\n",
        f"    (cherry picked from commit {THP[:12]} linux-next)\n",
        f"(backported from commit {THP})\n",
        f"commit {THP}\nAuthor: someone\n",
        f"Git-commit: {THP}\n",
        f"A text first.\r\n\r\ncommit {THP} upstream.\r\n",
    ],
)
def test_a_backport_under_another_id_and_subject_is_present(body: str):
    report = read(commit(own("1"), "mm: another subject", body))
    finding = of(report, "thp-bypass-pfnmap")
    assert (finding.verdict, finding.commit) == ("present", own("1"))


@pytest.mark.parametrize(
    "body",
    [
        f"Since commit {THP} upstream this is not so.\n",
        f'Fixes: {THP[:12]} ("{THP_SUBJECT}")\n',
        f"See commit {THP}.\n",
        f"This partially reverts commit {THP}.\n",
        f"commit {own('9')} upstream.\n",
        f"Link: https://example.org/{THP}\n",
        f'Stable-dep-of: {THP[:12]} ("{THP_SUBJECT}")\n',
    ],
)
def test_a_mention_is_no_backport(body: str):
    assert verdict(commit(own("1"), "mm: another subject", body), "thp-bypass-pfnmap", "6.12.94") == "absent"


def test_the_commit_itself_is_told_by_its_id_full_or_short():
    assert verdict(commit(THP, "mm: renamed"), "thp-bypass-pfnmap") == "present"
    assert verdict(commit(THP[:12], "mm: renamed"), "thp-bypass-pfnmap") == "present"


@pytest.mark.parametrize("prefix", ["", "UPSTREAM: ", "BACKPORT: FROMGIT: "])
def test_a_subject_is_enough(prefix: str):
    finding = of(read(commit(own("1"), prefix + THP_SUBJECT)), "thp-bypass-pfnmap")
    assert (finding.verdict, finding.line) == ("present", 2)


def test_a_subject_that_only_starts_so_is_another():
    assert verdict(commit(own("1"), THP_SUBJECT + " and more"), "thp-bypass-pfnmap", "6.12.94") == "absent"


def test_one_commit_may_carry_several_changes():
    body = f"A squash.\n\ncommit {THP} upstream.\ncommit {ALIGN} upstream.\n"
    report = read(commit(own("1"), "mm, vfio: backports", body))
    assert (of(report, "thp-bypass-pfnmap").line, of(report, "vfio-align-fault-to-order").line) == (5, 6)


def test_what_a_present_change_requires_is_present():
    report = read(commit(own("1"), "vfio/type1: Use mapping page mask for pfnmaps"))
    assert of(report, "follow-addr-mask").verdict == "present"
    assert of(report, "huge-pfnmap").verdict == "present"


def test_numbers_alone_on_a_line_do_not_start_a_commit():
    log = commit(own("1"), "mm: faster", f"Cycles:\n\n1048576\n\ncommit {THP} upstream.\n")
    assert read(log).commits == 1


# reverts

PICKED = commit(own("b"), THP_SUBJECT, f"commit {THP} upstream.\n")


@pytest.mark.parametrize(
    "body",
    [
        f"This reverts commit {own('b')}.\n",
        f"This reverts commit {own('b')[:12]} which is commit {THP} upstream.\n",
        f"This reverts commit {own('b')} which is\ncommit {THP} upstream.\n",
        f"This reverts commit\n{own('b')}.\n",
        f"This reverts commit {own('8')}, which is commit {THP} upstream.\n",
        f"This reverts commit {THP}.\n",
        f"This reverts commits {own('8')} and {own('b')}.\n",
        f"commit {own('7')} upstream.\n\nThis reverts commit {THP}.\n",
    ],
)
def test_a_revert_may_name_the_upstream_commit_or_the_backport(body: str):
    finding = of(read(commit(own("c"), "mm: not that", body) + PICKED), "thp-bypass-pfnmap")
    assert (finding.verdict, finding.commit, finding.line) == ("reverted", own("c"), 1)


def test_a_revert_without_an_id_is_told_by_its_subject():
    assert verdict(commit(own("c"), f'Revert "{THP_SUBJECT}"') + PICKED, "thp-bypass-pfnmap") == "reverted"


def test_a_revert_counts_although_the_commit_is_below_the_cut():
    assert verdict(commit(own("c"), "mm: not that", f"This reverts commit {THP}.\n"), "thp-bypass-pfnmap") == "reverted"


def test_a_revert_wins_over_what_the_release_has():
    log = commit(own("c"), f'Revert "{THP_SUBJECT}"') + commit(own("d"), "Linux 6.12.117")
    assert verdict(log, "thp-bypass-pfnmap") == "reverted"


REVERT = commit(own("c"), f'Revert "{THP_SUBJECT}"', f"This reverts commit {own('b')}.\n")


@pytest.mark.parametrize(
    "again",
    [
        commit(own("d"), f'Reapply "{THP_SUBJECT}"', f"This reverts commit {own('c')}.\n"),
        commit(own("d"), f'Revert "Revert "{THP_SUBJECT}""', f"This reverts commit {own('c')}.\n"),
        commit(own("d"), f'Reapply "{THP_SUBJECT}"'),
        commit(own("d"), "mm: once more", f"This reverts commit {own('c')}.\n"),
        commit(own("d"), THP_SUBJECT, f"commit {THP} upstream.\n"),
    ],
)
def test_a_change_that_was_put_back_is_present(again: str):
    finding = of(read(again + REVERT + PICKED), "thp-bypass-pfnmap")
    assert (finding.verdict, finding.commit) == ("present", own("d"))


def test_reverts_of_reverts_of_reverts_are_followed():
    again = commit(own("d"), "mm: once more", f"This reverts commit {own('c')}.\n")
    off = commit(own("e"), "mm: after all not", f"This reverts commit {own('d')}.\n")
    assert verdict(off + again + REVERT + PICKED, "thp-bypass-pfnmap") == "reverted"


def test_a_revert_of_something_else_changes_nothing():
    other = commit(own("c"), 'Revert "net: something"', f"This reverts commit {own('8')}.\n")
    assert verdict(other + PICKED, "thp-bypass-pfnmap") == "present"


def test_oldest_first_is_refused():
    with pytest.raises(BadInput, match="--reverse"):
        read(PICKED + REVERT)


# the forms of a log

UBUNTU = """linux (6.14.0-24.24) plucky; urgency=medium

  * VM boots slowly with large-BAR GPU Passthrough (Root Cause Fix SRU)
    (LP: #2111861)
    - mm: Provide address mask in struct follow_pfnmap_args
    - vfio/type1: Use mapping page mask for pfnmaps

 -- A B <a@example.org>  Sun, 15 Jun 2025 10:00:00 +0200
"""
DEBIAN = """linux (6.12.29-1) unstable; urgency=medium

  * New upstream stable update:
    https://www.kernel.org/pub/linux/kernel/v6.x/ChangeLog-6.12.29
    - [arm64] mm: something
    - [x86] vfio/type1: Use mapping page mask
      for pfnmaps (Closes: #1)

 -- A B <a@example.org>  Mon, 19 May 2025 10:00:00 +0200
"""
RPM = """* Tue Jun 24 2025 A B <a@example.org> [6.12.0-55.20.1.el10_0]
- mm: Provide address mask in struct follow_pfnmap_args (A B) [RHEL-1] {CVE-2025-1}
- vfio/type1: Use mapping page mask for pfnmaps (A B) [RHEL-1]
"""
SUSE = """-------------------------------------------------------------------
Tue Jun 10 14:06:06 CEST 2025 - a@example.org

- mm: Provide address mask in struct follow_pfnmap_args (bsc#1).
- vfio/type1: Use mapping page mask for
  pfnmaps (bsc#1).
- commit 1234567
"""


def default(id: str, subject: str, body: str = "", headers: str = "Author: A B <a@example.org>\n") -> str:
    message = "".join(f"    {line}\n" for line in (subject, "", *body.splitlines()))
    return f"commit {id}\n{headers}Date:   Fri May 2 16:40:31 2025 -0600\n\n{message}\n"


def test_gits_own_form_tells_the_same_as_the_format():
    commits = [(own("1"), "mm: x", f"commit {THP} upstream.\n"), (own("2"), "vfio/pci: Align huge faults to order", "")]
    plain, formatted = (read("".join(form(*one) for one in commits)) for form in (default, commit))
    assert [(f.change, f.verdict, f.commit) for f in plain.findings] == [
        (f.change, f.verdict, f.commit) for f in formatted.findings
    ]
    assert of(plain, "thp-bypass-pfnmap").line == 7


def test_decorations_notes_and_diffs_are_passed_over():
    log = default(f"{own('1')} (HEAD -> x, tag: v1)", "mm: x") + f"Notes:\n    commit {THP} upstream.\n\n"
    log += default(own("2"), "mm: y") + f"diff --git a/x b/x\n    commit {THP} upstream.\n"
    assert read(log).commits == 2
    assert verdict(log, "thp-bypass-pfnmap") == "undecidable"


def test_a_subject_over_two_lines_is_one():
    log = f"commit {own('1')}\n\n    mm/huge_memory: bypass THP tuneables\n    for huge pfnmap mappings\n"
    assert verdict(log, "thp-bypass-pfnmap") == "present"


def test_with_a_merge_header_a_release_at_the_end_proves_no_absence():
    last = default(own("9"), "Linux 6.12.94")
    merged = default(own("1"), "bring x", headers="Merge: 1111111 2222222\n")
    assert verdict(default(own("1"), "mm: x") + last, "thp-bypass-pfnmap") == "absent"
    assert verdict(merged + last, "thp-bypass-pfnmap") == "undecidable"


@pytest.mark.parametrize(
    "line",
    [
        "{} {}",
        "{} (HEAD -> x, tag: v1) {}",
        "{} (stable/linux-6.12.y, main) {}",
        "{} ({}, 2025-06-15)",
        '{} ("{}")',
        "\x1b[33m{}\x1b[m {}",
    ],
)
def test_subjects_alone_are_a_log(line: str):
    log = line.format("1" * 12, THP_SUBJECT) + "\n" + line.format(ALIGN[:12], "x") + "\n"
    assert verdict(log, "thp-bypass-pfnmap") == "present"
    assert verdict(log, "vfio-align-fault-to-order") == "present"


@pytest.mark.parametrize(
    "prompt", ["$ git log --oneline v6.12..", "user@host:~/linux# git log", "```", "```console\n$ git log"]
)
def test_a_prompt_and_a_fence_around_a_log_are_passed_over(prompt: str):
    assert verdict(f"{prompt}\n1111111 {THP_SUBJECT}\n```\n", "thp-bypass-pfnmap") == "present"
    assert verdict(f"{prompt}\n{default(own('1'), THP_SUBJECT)}", "thp-bypass-pfnmap") == "present"


def test_subjects_alone_prove_no_absence_of_a_change_whose_subject_is_not_known():
    log = "1111111 mm: x\n"
    assert verdict(log, "thp-bypass-pfnmap", "6.12") == "absent"
    assert upstream_changes()["memory-failure-no-struct-page"].subject == ""
    assert verdict(log, "memory-failure-no-struct-page", "6.12") == "undecidable"


@pytest.mark.parametrize("log", [UBUNTU, DEBIAN, RPM, SUSE], ids=["ubuntu", "debian", "rpm", "suse"])
def test_items_of_a_changelog_are_changes(log: str):
    report = read(log)
    assert of(report, "type1-pfnmap-batch").verdict == "present"
    assert of(report, "follow-addr-mask").verdict == "present"
    assert of(report, "type1-pfnmap-batch").commit is None


@pytest.mark.parametrize(("log", "newest"), [(UBUNTU, "6.14"), (DEBIAN, "6.12.29"), (RPM, "6.12"), (SUSE, None)])
def test_the_version_of_a_changelog_says_what_it_is_built_on(log: str, newest: str | None):
    assert read(log).newest_release == newest


@pytest.mark.parametrize("log", [UBUNTU, DEBIAN, RPM, SUSE], ids=["ubuntu", "debian", "rpm", "suse"])
def test_a_changelog_proves_no_absence(log: str):
    assert {f.verdict for f in read(log, "6.12").findings} == {"present", "undecidable"}
    assert not read(log, "6.12").complete


def test_a_changelog_does_not_say_which_of_a_change_and_its_revert_came_first():
    again = UBUNTU.replace("    - mm", '    - Revert "vfio/type1: Use mapping page mask for pfnmaps"\n    - mm')
    assert verdict(again, "type1-pfnmap-batch") == "undecidable"
    revert = '  * x\n    - Revert "vfio/type1: Use mapping page mask for pfnmaps"\n'
    later = f"linux (6.14.0-25.25) plucky; urgency=medium\n\n{revert}"
    assert verdict(later + "\n" + UBUNTU, "type1-pfnmap-batch") == "reverted"


# what is no log


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no commit"),
        (b"\0" * 100_000, "binary"),
        (own("1").encode() + b"\nmm: x\n\0\n", "binary"),
        (b"commit " + THP.encode() + b"\nAuthor: someone\n", "no commit"),
        (b"hello\n", "line 1 begins no log of changes"),
        (b"\n\nhello\n", "line 3 begins no log of changes"),
        (b"a" * 300_000, "line 1 begins no log of changes"),
        (bytes(range(1, 256)) * 10, "line 1 begins no log of changes"),
        (b"1111111 mm: x\nhello\n", "line 2 is no commit and its subject"),
    ],
)
def test_what_is_no_log_is_bad_input_of_one_line(data: bytes, message: str):
    with pytest.raises(BadInput, match=message) as error:
        read(data)
    assert "\n" not in str(error.value)


def test_a_line_without_end_is_read_in_bounded_pieces():
    log = commit(own("1"), "mm: " + "x" * 3_000_000) + commit(own("2"), "mm: y", "z" * 3_000_000 + "\n") + PICKED
    report = read(log)
    assert report.commits == 3
    assert of(report, "thp-bypass-pfnmap").line == 3 + 4 + 1 + 2


def test_a_message_without_end_is_bad_input():
    with pytest.raises(BadInput, match="larger than 4 MiB"):
        read(own("1") + "\nmm: x\n" + "line\n" * 900_000)


def test_a_subject_in_another_encoding_is_read():
    assert of(read(b"1" * 40 + b"\nmm: caf\xe9\n\n" + PICKED.encode()), "thp-bypass-pfnmap").verdict == "present"


def test_a_file_that_is_missing_or_a_directory_is_bad_input(tmp_path: Path):
    with pytest.raises(BadInput, match="no such file"):
        read_gitlog_file(tmp_path / "log")
    with pytest.raises(BadInput, match="a directory"):
        read_gitlog_file(tmp_path)


def test_every_change_gets_a_finding(distribution: LogReport):
    assert [finding.change for finding in distribution.findings] == list(upstream_changes())


UBUNTU = """\
linux (6.14.0-24.24) plucky; urgency=medium

  * VM boots slowly with large-BAR GPU Passthrough (LP: #2111861)
    - mm: Provide address mask in struct follow_pfnmap_args
    - vfio/type1: Use mapping page mask for pfnmaps

 -- Somebody <a@example.org>  Sun, 15 Jun 2025 10:00:00 +0200
"""


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_a_packed_changelog_is_read_as_it_is_installed(tmp_path: Path, pack: Callable[[bytes], bytes]):
    path = tmp_path / "changelog.Debian"
    path.write_bytes(pack(UBUNTU.encode()))
    verdicts = {finding.change: finding.verdict for finding in read_gitlog_file(path).findings}
    assert verdicts["type1-pfnmap-batch"] == "present"
    path.write_bytes(pack(UBUNTU.encode())[:-30])
    if pack is not bytes:
        with pytest.raises(BadInput, match="truncated"):
            read_gitlog_file(path)
