"""The program that a command runs again and again, without the pool and under it."""

from __future__ import annotations

import os

from cmp_preload.console import progress, words
from cmp_preload.console.errors import warn
from cmp_preload.measuring.measurer import Measurer, Run
from cmp_preload.measuring.results import Results, require_files
from cmp_preload.pool import preloading


class Program:
    """Its runs, each with a number, and a line of progress. `chosen`: settings of each run under the
    pool. `folder`: there each of these leaves statistics; None: it leaves none. `total`: how many
    runs there will be, as far as it is known; 0: no line says it. A run is ended after `limit_s`."""

    def __init__(
        self,
        measurer: Measurer,
        results: Results,
        preload: str,
        chosen: dict[str, str],
        folder: str | None = None,
        total: int = 0,
        limit_s: float | None = None,
    ) -> None:
        self.results = results
        self.folder = folder
        self.total = total
        self._measurer = measurer
        self._environment = preloading.own_environment()
        self._preload = preload
        self._chosen = chosen
        self._limit_s = limit_s
        self._number = 0  # of the latest run

    @property
    def name(self) -> str:
        return self._measurer.command[0]

    def run(self, settings: dict[str, str] | None, what: str) -> Run:
        """`settings` count for more than those chosen; None: without the pool, and a Failure if that
        does not go well."""
        self._number += 1
        total = f" of {self.total}" if self._number <= self.total else ""  # more: who knows how many
        line = f"run {self._number}{total}: {what}"
        progress.tell(f"{line} …", last=False)
        reports = None
        if settings is None:
            environment = preloading.without_pool(self._environment)
        else:
            reports = self._make_folder()
            written = preloading.file_of_each(reports, ".json") if reports else "off"
            added = {**self._chosen, **settings, "CMP_STATS": written}
            environment = preloading.with_pool(self._environment, self._preload, added)
        run = self._measurer.run(environment, self._limit_s, reports)
        ending = "" if run.code == self.results.code else f", {run.ending()}"
        progress.tell(f"{line} {words.seconds(run.seconds)}{ending}", last=True)
        if settings is None:
            self._require(run)
        return run

    def _require(self, run: Run) -> None:
        """Failure if a run without the pool did not go well. How long others may take, if nothing else
        was said, is known by the first."""
        self.results.require(run, self._measurer.command)
        require_files(self._measurer.files)
        if self._limit_s is None:
            self._limit_s = 60 + 10 * run.seconds

    def _make_folder(self) -> str | None:
        """For the statistics of a run. Where that fails the runs go on, with a line of warning."""
        if self.folder is None:
            return None
        reports = os.path.join(self.folder, str(self._number))
        try:
            os.mkdir(reports, 0o700)
        except OSError as error:
            warn(f"no statistics: {reports}: {error.strerror}")
            self.folder = None
            return None
        return reports
