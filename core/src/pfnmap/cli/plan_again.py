"""``plan --batch``: lines that differ in their BARs alone are answered without going through the command again."""

from __future__ import annotations

from collections.abc import Sequence

from pfnmap.cli.plan_sides import Question, how, where
from pfnmap.plan import plan
from pfnmap.requests import driven, of_bars

__all__ = ["Again"]


class Again:
    """What answers a question that is asked again of other BARs."""

    def __init__(self, question: Question, kernel: str, driver: str | None) -> None:
        """`kernel`: the text of what is said of it, by which the desk has it; `driver`: who drives the BARs, None: who
        does by itself."""
        self.question = question
        self.kernel = kernel
        self.driver = driver
        self.how = how(question)

    def __call__(self, bars: Sequence[str]) -> str | None:
        """Return the document as text, without its braces; None where the kernel is no longer there. Raises as `plan`
        does."""
        image = self.question.desk.linked(self.kernel)
        if image is None:
            return None
        requests = where(self.question, driven(of_bars(bars), self.driver))
        return f'{plan(image, requests, **self.how).dumped()}, "skipped": []'
