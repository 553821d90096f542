"""The variants that a trial compares, and what was measured of each."""

from __future__ import annotations

import statistics as numbers

from cmp_preload.console import words
from cmp_preload.measure import Run
from cmp_preload.records import counters

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
        return numbers.median(run.seconds for run in self.runs)

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
    def counters(self) -> dict:
        """What the processes of the run with the median time counted, together."""
        middle = sorted(self.runs, key=lambda run: run.seconds)[(len(self.runs) - 1) // 2]
        return counters.add_up(middle.statistics)

    def allocation_s(self) -> float | None:
        """Inside real calls and waits, the sum over all threads; None: nothing was counted."""
        process = self.counters["process"]
        if not process:
            return None
        return counters.allocation_ns(process) / 1e9


def series_of(modes: list[str], times: int, filled: bool) -> list[Series]:
    found = [Series("without", None, times), Series("observed", {"CMP_MODE": "observe"}, times)]
    found += [Series(mode, {"CMP_MODE": "pool", "CMP_FREE_SYNC": mode}, times) for mode in modes]
    if filled:
        found.append(
            Series("filled", {"CMP_MODE": "pool", "CMP_FREE_SYNC": modes[0], "CMP_FILL": POISON}, 1)
        )
    return found


def table_of(all_series: list[Series]) -> str:
    rows = [
        [
            "",
            "wall time",
            "spread",
            "in allocation",
            "real calls",
            "hit rate",
            "peak memory",
            "frees that waited",
        ]
    ]
    for series in all_series:
        spread = f"{words.seconds(series.fastest)} to {words.seconds(series.slowest)}"
        row = [series.name, words.seconds(series.median), spread if len(series.runs) > 1 else ""]
        counted = series.counters
        process = counted["process"]
        if not process:
            rows.append(row + [""] * 5)
            continue
        row.append(words.seconds(series.allocation_s()))
        row.append(f"{process['real_malloc_calls'] + process['real_free_calls']:,}")
        if series.name == "observed":
            rows.append(row + [""] * 3)
            continue
        row.append(words.floor_percent(counted["totals"]["hit_rate"]))
        row.append(words.size(process["reserved_peak_bytes"]))
        rows.append(row + [counters.waits_in_words(process)])
    return words.table(rows, left=(0, 7))
