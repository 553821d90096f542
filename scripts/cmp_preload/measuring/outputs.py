"""Are the results of two runs the same? What differs between runs without the pool says nothing
about the pool, and neither do times and rates, nor what the user calls noise."""

from __future__ import annotations

import itertools
import os
import re

from cmp_preload.console.errors import Failure
from cmp_preload.console.words import shorten

NUMBER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")

# What says that a number is a measurement: the unit behind it (if no other number's name or value
# begins there), ...
COUNTED = (
    r"[kMGTP]?i?B|[kMGTP]?bytes|[kMGTP]?FLOPs?|it|iter|iterations|steps?|samples?|images?|imgs?"
)
UNIT = re.compile(
    r"(?:\s*[\[(]?(?:[nuµμm]?s|[nuµm]?secs?|(?:nano|micro|milli)?seconds?|mins?|minutes?|hours?"
    rf"|[kMGTP]?FLOPS|fps|(?:{COUNTED}|tokens?|frames?|\w*ops?)/(?:s|sec|second)"
    rf"|[nuµμm]?s/(?:{COUNTED}|tokens?|frames?)|[a-z]+ per second)(?![\w/])|x(?![\w.]))"
    r"(?!\s*[:=])(?! [-+.]?\d)",
    re.IGNORECASE,
)
# ... or a word before it. "ms" is one, "MS" is a mean square.
MEASURED = re.compile(
    r"(?<![a-zA-Z])(?:(?i:(?:run|wall|cpu|gpu|kernel)?time(?![\s_-]*step)|elapsed|latency|bandwidth"
    r"|throughput|speed-?up|(?:milli|micro|nano)?seconds|[munµμ]?secs?|[kmgtp]?flops|fps)"
    r"|[munµμ]s|[KMGTP]i?B/s)(?![a-zA-Z-])"
)
CLOCK = re.compile(r"\d{1,2}:\d{2}:\d{2}(?:\.\d+)?|\d+:\d{2}<\d+:\d{2}|\d{4}-\d{2}-\d{2}")
PHRASE_END = re.compile(r"[,;|\t]|  ")


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
        self._varying: dict[int, set[int]] = {}  # line: which of its numbers vary without the pool
        self.measured: set[int] = set()  # lines in which times or rates alone differed
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
                self.incomparable = f"the number of lines of {name} varies"
                return
            for i, (left, right) in enumerate(zip(runs[0], run)):
                different = self._different_numbers(left, right)
                if different is None:
                    self.incomparable = f"{self._difference(i, left, right)}"
                    return
                if different:
                    self._varying.setdefault(i, set()).update(different)

    @property
    def varying(self) -> int:
        """The lines whose numbers vary without the pool."""
        return len(self._varying)

    def unstable(self) -> str | None:
        """Where the runs that it was learnt from differ by more than times and rates, in words."""
        if self.incomparable:
            return self.incomparable
        for i, which in sorted(self._varying.items()):
            if which - measurements(self._reference[i]):
                return f"{self.name} line {i + 1}: '{shorten(self._reference[i], 60)}' varies"
        return None

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
            different = self._different_numbers(left, right)
            if different is None:
                return self._difference(i, left, right)
            different -= self._varying.get(i, set())
            if results := different - measurements(left):
                return self._difference(i, left, right, min(results))
            if different:
                self.measured.add(i)
        return None

    def _lines(self, data: bytes) -> list[str]:
        lines = data.decode("utf-8", "backslashreplace").split("\n")
        for rule in self._rules:
            lines = [rule.sub("", line) for line in lines]
        return lines

    def _different_numbers(self, left: str, right: str) -> set[int] | None:
        """Which numbers of two lines differ; None: more than their numbers does."""
        if left == right:
            return set()
        if NUMBER.sub("#", left).split() != NUMBER.sub("#", right).split():
            return None
        pairs = zip(NUMBER.findall(left), NUMBER.findall(right))
        return {i for i, (a, b) in enumerate(pairs) if not _close(a, b, self._tolerance)}

    def _difference(self, i: int, left: str | None, right: str | None, at: int = 0) -> str:
        """In words: of both lines what is around the first difference, or around number `at`."""
        if left is None or right is None:
            return f"{self.name} line {i + 1}: {_shown(left)}, then {_shown(right)}"
        if NUMBER.sub("#", left) == NUMBER.sub("#", right):
            begins = [
                next(itertools.islice(NUMBER.finditer(line), at, None)).start()
                for line in (left, right)
            ]
        else:
            same = len(os.path.commonprefix([left, right]))
            begins = [same, same]
        parts = (_shown(line, begin) for line, begin in zip((left, right), begins))
        return f"{self.name} line {i + 1}: {', then '.join(parts)}"


def _shown(line: str | None, at: int = 0) -> str:
    """The line, or what is around the place `at`."""
    if line is None:
        return "nothing"
    begin = 0 if at < 50 or len(line) <= 60 else at - 30
    return f"'{'…' if begin else ''}{shorten(line[begin:], 60)}'"


def measurements(line: str) -> set[int]:
    """Which numbers of a line are times or rates, by the words and units around them."""
    clocks = [match.span() for match in CLOCK.finditer(line)]
    found = set()
    behind = 0  # the number before this one, with its unit, ends there
    for i, number in enumerate(NUMBER.finditer(line)):
        begin, end = number.span()
        unit = UNIT.match(line, end)
        phrase = PHRASE_END.split(line[:begin])[-1]
        key = re.match(r"([^:=]*)[:=][^a-zA-Z:=]*$", phrase)  # as in "Elapsed (3 runs): 1.5"
        if (
            unit
            or MEASURED.search(PHRASE_END.split(line[behind:begin])[-1])
            or (key and MEASURED.search(key.group(1)))
            or any(first <= begin < last for first, last in clocks)
        ):
            found.add(i)
        behind = unit.end() if unit else end
    return found


def _close(left: str, right: str, tolerance: float) -> bool:
    if left == right:
        return True
    try:
        a, b = float(left), float(right)
    except ValueError:  # hexadecimal: no amount
        return False
    return tolerance != 0 and abs(a - b) <= tolerance * max(abs(a), abs(b))
