"""Which of many make the difference? Binary search, with answers that can be wrong one way: what
makes a difference may fail to make it in a run."""

from __future__ import annotations

TRIES = 4  # runs after which it is believed that something makes no difference


def most_tests(count: int) -> int:
    """So many answers are asked for at most: three of `count` are found with fewer."""
    return 8 + 4 * max(1, count).bit_length()


class Narrowing:
    """`within`: the smallest part so far of which it was seen that it makes the difference; what the
    search found, or how far it came when it is interrupted. `complete`: nothing can be left out."""

    def __init__(self, candidates: list, differs) -> None:
        """`differs(part)`: whether a part of `candidates`, all of which do, makes the difference."""
        self.within = list(candidates)
        self.complete = False
        self._differs = differs
        self._left = most_tests(len(candidates))

    def _try(self, part: list) -> bool | None:
        """None: no more answers are asked for."""
        if self._left == 0:
            return None
        self._left -= 1
        found = self._differs(part)
        if found and len(part) < len(self.within):
            self.within = part
        return found

    def search(self) -> None:
        """Each pass finds the end of the shortest beginning that makes the difference together with
        what was found before: without that end it makes none, so that one is needed."""
        needed: list = []
        rest = list(self.within)
        while rest:
            low, high = 0, len(rest)  # the beginning up to `high` does, up to `low` does not
            while high - low > 1:
                middle = (low + high) // 2
                found = self._try(rest[:middle] + needed)
                if found is None:
                    return
                low, high = (low, middle) if found else (middle, high)
            needed.append(rest[high - 1])
            rest = rest[: high - 1]
            found = self._try(needed[:]) if rest else True
            if found is None:
                return
            if found:
                break
        # A wrong answer led past what is needed to what is not.
        for one in list(needed):
            fewer = [other for other in needed if other is not one]
            found = self._try(fewer) if fewer else False
            if found is None:
                return
            if found:
                needed = fewer
        self.complete = len(self.within) == len(needed)
