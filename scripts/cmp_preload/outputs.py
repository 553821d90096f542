"""Are the results of two runs the same? What differs between runs without the pool says nothing
about the pool, and neither does what the user calls noise."""

from __future__ import annotations

import itertools
import re

from cmp_preload.cli import Failure
from cmp_preload.text import shorten

NUMBER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")


def rules_of(patterns: list[str]) -> list[re.Pattern]:
    try:
        return [re.compile(pattern) for pattern in patterns]
    except re.error as error:
        raise Failure(f"--ignore {error.pattern!r}: {error}", 2) from None


class Comparison:
    """What one output (stdout, say) must look like: learnt from runs without the pool."""

    def __init__(
        self, name: str, references: list[bytes], rules: list[re.Pattern], tolerance: float
    ) -> None:
        self.name = name
        self._rules = rules
        self._tolerance = tolerance
        self._sorted = False
        self.varying: set[int] = set()  # lines whose numbers vary without the pool
        self.incomparable: str | None = None  # why it cannot be compared at all
        runs = [self._lines(data) for data in references]
        self._reference = runs[0]
        if any(run != runs[0] for run in runs) and all(
            sorted(run) == sorted(runs[0]) for run in runs
        ):
            self._sorted = True  # the same lines in another order: several processes, say
            runs = [sorted(run) for run in runs]
            self._reference = runs[0]
        for run in runs[1:]:
            if len(run) != len(runs[0]):
                self.incomparable = "the number of lines varies"
                return
            for i, (left, right) in enumerate(zip(runs[0], run)):
                if self._same(left, right):
                    continue
                if _without_numbers(left) != _without_numbers(right):
                    self.incomparable = f"{self._difference(i, left, right)}"
                    return
                self.varying.add(i)

    def is_empty(self) -> bool:
        return self._reference == [""]

    def difference(self, data: bytes) -> str | None:
        """Where `data` differs from what the runs without the pool wrote, in words."""
        if self.incomparable:
            return None
        lines = self._lines(data)
        if self._sorted:
            lines.sort()
        for i, (left, right) in enumerate(itertools.zip_longest(self._reference, lines)):
            if left is None or right is None:
                return self._difference(i, left, right)
            if i in self.varying:
                left, right = _without_numbers(left), _without_numbers(right)
            if not self._same(left, right):
                return self._difference(i, left, right)
        return None

    def _lines(self, data: bytes) -> list[str]:
        lines = data.decode("utf-8", "backslashreplace").split("\n")
        for rule in self._rules:
            lines = [rule.sub("", line) for line in lines]
        return lines

    def _same(self, left: str, right: str) -> bool:
        if left == right:
            return True
        if not self._tolerance or _without_numbers(left) != _without_numbers(right):
            return False
        pairs = zip(NUMBER.findall(left), NUMBER.findall(right))
        return all(_close(a, b, self._tolerance) for a, b in pairs)

    def _difference(self, i: int, left: str | None, right: str | None) -> str:
        def shown(line: str | None) -> str:
            return "nothing" if line is None else f"'{shorten(line, 60)}'"

        return f"{self.name} line {i + 1}: {shown(left)}, then {shown(right)}"


def _without_numbers(line: str) -> str:
    return NUMBER.sub("#", line)


def _close(left: str, right: str, tolerance: float) -> bool:
    if left == right:
        return True
    try:
        a, b = float(left), float(right)
    except ValueError:  # hexadecimal: no amount
        return False
    return abs(a - b) <= tolerance * max(abs(a), abs(b))
