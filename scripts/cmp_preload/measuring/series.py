"""The variants that a trial compares, and what was measured of each."""

from __future__ import annotations

import statistics

from cmp_preload.measuring.measurer import Run

ASYNC_KEEPS = ("off", "1T")  # nothing, and as much as there is
KEEPS_PAGE_LOCKED = {"CMP_HOST": "on"}
POISON = "0xFF"  # NaN as a floating-point number of any size, -1 as an integer


class Series:
    """The runs of one variant. A check is run once: it shows whether results depend on something,
    and is nothing to choose. `tried`: the setting that it tries beside a mode, if that is what it
    is for."""

    def __init__(
        self,
        name: str,
        added: dict[str, str] | None,
        times: int,
        is_check: bool = False,
        tried: tuple[str, str] | None = None,
    ) -> None:
        self.name = name
        self.tried = tried
        self.settings = added  # None: without the pool
        self.times = times
        self.is_check = is_check
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


def async_keep_series(usual: Series) -> list[Series]:
    """Beside the usual mode: what stream-ordered pools keep."""
    return [
        Series(
            f"CMP_ASYNC_KEEP={value}",
            {**usual.settings, "CMP_ASYNC_KEEP": value},
            usual.times,
            tried=("CMP_ASYNC_KEEP", value),
        )
        for value in ASYNC_KEEPS
    ]


def page_locked_series(usual: Series) -> Series:
    """Beside the usual mode: page-locked memory of the host is kept."""
    settings = {**usual.settings, **KEEPS_PAGE_LOCKED}
    return Series("CMP_HOST=on", settings, usual.times, tried=("CMP_HOST", "on"))


def series_of(modes: list[str], times: int, filled: bool) -> list[Series]:
    found = [Series("without", None, times), Series("observed", {"CMP_MODE": "observe"}, times)]
    found += [Series(mode, {"CMP_MODE": "pool", "CMP_FREE_SYNC": mode}, times) for mode in modes]
    if filled:
        settings = {"CMP_MODE": "pool", "CMP_FREE_SYNC": modes[0], "CMP_FILL": POISON}
        found.append(Series("filled", settings, 1, is_check=True))
    return found
