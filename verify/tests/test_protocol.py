"""The lines between host and guest survive whatever the kernel writes in between."""

from __future__ import annotations

from zlib import crc32

import pytest

from pfnmap_verify.protocol import Answer, request_line


def line(seq: int, index: int, text: str) -> str:
    return f"@pfnmap {seq} {index} {crc32(f'{seq} {index} {text}'.encode()):08x} {text}"


def test_an_answer_is_complete_with_its_last_line_and_all_before() -> None:
    answer = Answer(7)
    for index, text in enumerate(["result ok", "addr 0x1000", "end"]):
        assert not answer.complete
        assert answer.take(line(7, index, text))
    assert answer.complete
    assert answer.lines == ["result ok", "addr 0x1000"]


def test_kernel_messages_are_no_lines_of_an_answer() -> None:
    answer = Answer(1)
    assert not answer.take("[   12.3] vfio-pci 0000:00:01.0: enabling device (0000 -> 0003)")
    assert not answer.take("@pfnmap 1 0 00000000 result ok")
    assert answer.take("[   12.3] cut off" + line(1, 0, "result ok"))


def test_a_line_that_a_message_cut_in_two_is_missing_and_asked_for_again() -> None:
    answer = Answer(1)
    whole = line(1, 0, "result ok")
    assert not answer.take(whole[:14] + "[ 1.0] WARNING: " + whole[14:])
    answer.take(line(1, 1, "end"))
    assert answer.ended
    assert not answer.complete
    answer.take(whole)
    answer.take(line(1, 1, "end"))
    assert answer.complete
    assert answer.lines == ["result ok"]


def test_lines_of_an_earlier_answer_are_taken_and_ignored() -> None:
    answer = Answer(2)
    assert answer.take(line(1, 0, "end"))
    assert not answer.complete


def test_a_request_checks_its_number_and_text() -> None:
    assert request_line(3, "walk va=0x1000") == f"@pfnmap 3 {crc32(b'3 walk va=0x1000'):08x} walk va=0x1000\n".encode()
    with pytest.raises(ValueError, match="does not fit"):
        request_line(3, "walk\nva")
