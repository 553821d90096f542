"""The variants that a trial compares, and what was measured of each."""

from __future__ import annotations

import statistics

from cmp_preload.measuring.measurer import Run

POISON = "0xFF"  # NaN as a floating-point number of any size, -1 as an integer


class Series:
    """The runs of one variant. A check is run once: it shows whether results depend on something,
    and is nothing to choose. An addition may be chosen with any of the others."""

    def __init__(
        self,
        name: str,
        added: dict[str, str] | None,
        times: int,
        is_check: bool = False,
        is_addition: bool = False,
    ) -> None:
        self.name = name
        self.settings = added  # None: without the pool
        self.times = times
        self.is_check = is_check
        self.is_addition = is_addition
        self.runs: list[Run] = []
        self.different: list[str] = []  # for each run with other results, where

    @property
    def seconds(self) -> list[float]:
        return [run.seconds for run in self.runs]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def middle(self) -> Run:
        """The run with the median time."""
        return sorted(self.runs, key=lambda run: run.seconds)[(len(self.runs) - 1) // 2]

    @property
    def counters(self) -> dict:
        return self.middle.counters

    def allocation_s(self) -> float | None:
        return self.middle.allocation_s()


KEEPS_PAGE_LOCKED = {"CMP_HOST": "on"}


def keeping_of(usual: Series) -> Series:
    """The same, page-locked memory kept."""
    settings = {**(usual.settings or {}), **KEEPS_PAGE_LOCKED}
    return Series("CMP_HOST=on", settings, usual.times, is_addition=True)


def series_of(modes: list[str], times: int, filled: bool) -> list[Series]:
    found = [Series("without", None, times), Series("observed", {"CMP_MODE": "observe"}, times)]
    found += [Series(mode, {"CMP_MODE": "pool", "CMP_FREE_SYNC": mode}, times) for mode in modes]
    if filled:
        settings = {"CMP_MODE": "pool", "CMP_FREE_SYNC": modes[0], "CMP_FILL": POISON}
        found.append(Series("filled", settings, 1, is_check=True))
    return found
