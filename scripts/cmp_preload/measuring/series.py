"""The variants that a trial compares, and what was measured of each."""

from __future__ import annotations

import statistics

from cmp_preload.measuring.measurer import Run

POISON = "0xFF"  # NaN as a floating-point number of any size, -1 as an integer


class Series:
    """The runs of one variant."""

    def __init__(self, name: str, added: dict[str, str] | None, times: int) -> None:
        self.name = name
        self.settings = added  # None: without the pool
        self.times = times
        self.runs: list[Run] = []
        self.different: list[str] = []  # for each run with other results, where

    @property
    def median(self) -> float:
        return statistics.median(run.seconds for run in self.runs)

    @property
    def fastest(self) -> float:
        return min(run.seconds for run in self.runs)

    @property
    def slowest(self) -> float:
        return max(run.seconds for run in self.runs)

    @property
    def spread(self) -> float:
        """By how much runs differ; an outlier among many does not count."""
        times = sorted(run.seconds for run in self.runs)
        drop = len(times) // 4
        return times[-1 - drop] - times[drop]

    @property
    def middle(self) -> Run:
        """The run with the median time."""
        return sorted(self.runs, key=lambda run: run.seconds)[(len(self.runs) - 1) // 2]

    @property
    def counters(self) -> dict:
        return self.middle.counters

    def allocation_s(self) -> float | None:
        return self.middle.allocation_s()


def series_of(modes: list[str], times: int, filled: bool) -> list[Series]:
    found = [Series("without", None, times), Series("observed", {"CMP_MODE": "observe"}, times)]
    found += [Series(mode, {"CMP_MODE": "pool", "CMP_FREE_SYNC": mode}, times) for mode in modes]
    if filled:
        found.append(
            Series("filled", {"CMP_MODE": "pool", "CMP_FREE_SYNC": modes[0], "CMP_FILL": POISON}, 1)
        )
    return found
