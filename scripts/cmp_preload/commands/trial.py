"""cmp-preload trial: a program without the pool, observed, and with it, in turn, several times."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from typing import Callable

from cmp_preload.console import progress
from cmp_preload.console.arguments import (
    Parser,
    add_command,
    add_results,
    add_runs,
    command_of,
    number,
    own_command,
)
from cmp_preload.console.errors import Failure, Interrupted, warn
from cmp_preload.diagnosis import driver
from cmp_preload.measuring import outputs, shaking, verdict
from cmp_preload.measuring.judgement import page_locked_share
from cmp_preload.measuring.measurer import Measurer, Run
from cmp_preload.measuring.noise import order_of
from cmp_preload.measuring.program import Program
from cmp_preload.measuring.results import Results
from cmp_preload.measuring.series import (
    Series,
    async_keep_series,
    page_locked_series,
    series_of,
)
from cmp_preload.measuring.shaking import Starter, Tried
from cmp_preload.pool import preloading, program_file, settings
from cmp_preload.pool.library import Library, Option
from cmp_preload.records import counters
from cmp_preload.reporters import json, text

ABOUT = """Is PROGRAM faster with the pool, and are its results the same? Runs it several times, in turn:

  without            the program alone
  observed           real calls, counted and timed
  auto, order, none  under the pool, by what cudaFree keeps (CMP_FREE_SYNC)
  filled             once, with 0xFF in new memory: does it read what it never wrote?

Compares exit code and output; prints a table of times and of what the pool did, a verdict and what
to set. Progress goes to stderr. Exit code 1: the results were not the same.

Of a program that calls cudaMallocAsync, other values of CMP_ASYNC_KEEP are tried, too. Where a mode
that keeps less than auto gains, it is shaken as by cmp-preload shake, which makes the trial longer.
Numbers that vary between runs without the pool are not compared, and neither are times and rates,
as the words and units around them say."""

STRICTEST = "wait"  # what a trial may leave out: others keep as much where it can be seen


class Trial:
    """`chosen`: the settings that were given; what they say is not tried otherwise."""

    def __init__(self, program: Program, chosen: dict[str, str]) -> None:
        self._program = program
        self._chosen = chosen

    def run(self, series: Series) -> Run:
        return self._program.run(series.settings, series.name)

    def measure(self, all_series: list[Series]) -> None:
        """Every variant, in turn. Stops at once when the program fails without the pool."""
        plain = self.plain = all_series[0]
        # The first run finds caches cold. Its results count, its time does not.
        self.warm = self._program.run(plain.settings, "without, to warm up")
        for i in range(max(series.times for series in all_series)):
            self._round(i, [all_series[which] for which in order_of(i, len(all_series))])
            if i == 0:  # known by now
                more = self._more_to_try(all_series)
                self._round(i, more)
                checks = sum(series.is_check for series in all_series)  # they stand last
                place = len(all_series) - checks
                all_series[place:place] = more

    def _round(self, number: int, in_turn: list[Series]) -> None:
        for series in in_turn:
            if number >= series.times or (series.runs and series.runs[-1].over_limit):
                continue
            series.runs.append(self.run(series))

    def _more_to_try(self, all_series: list[Series]) -> list[Series]:
        """What helps only programs that do what this one does."""
        observed, usual = all_series[1:3]
        more = []
        in_order = counters.allocates_in_order(observed.counters["process"])
        if in_order and "CMP_ASYNC_KEEP" not in self._chosen:
            more += async_keep_series(usual)
        in_time = not usual.runs[-1].over_limit
        if in_time and page_locked_share(usual) and "CMP_HOST" not in self._chosen:
            more.append(page_locked_series(usual))
        self._program.total += sum(series.times for series in more)
        return more

    def compare(self, all_series: list[Series]) -> list[outputs.Comparison]:
        """Fills in where results differ."""
        comparisons = self._program.results.learn([self.warm, *all_series[0].runs])
        for series in all_series[1:]:
            found = map(self._program.results.difference, series.runs)
            series.different = [where for where in found if where]
        return comparisons

    def shake(self, kinds: list[str], runs: int, tried: dict[str, Tried]) -> None:
        """Fills in `tried`, by kind, as far as it comes."""
        if self._program.folder is None:
            return
        self._program.total += 1 + len(kinds) * runs
        folder = os.path.join(self._program.folder, "shaken")
        os.mkdir(folder, 0o700)
        starter = Starter(self._program.run, self._program.results.difference, folder)
        run, recorded = starter.record()
        different = self._program.results.difference(run)
        if different:
            warn(f"not shaken: the recording differed: {different}")
            return
        tried.update(zip(kinds, shaking.tried_of(kinds, recorded)))
        for kind in kinds:
            shaking.shake(tried[kind], range(1, runs + 1), starter, narrow=False)

    def cure(self, usual: Series, filled: Series | None) -> Series:
        """Does it read memory before it writes there? Then zeros help each time, and nothing else
        does. A fill takes time, too, and that alone may change results: so as often as the usual
        mode ran, until one run tells against it."""
        zeroed = Series(
            "zeroed", {**usual.settings, "CMP_FILL": "zero"}, len(usual.runs), is_check=True
        )
        zeroed.runs.append(self.run(zeroed))
        self.compare([self.plain, zeroed])
        self._repeat(zeroed, len(usual.runs), lambda: not zeroed.different)
        if filled is not None and usual.different and not zeroed.different:
            self._repeat(filled, len(usual.runs), lambda: len(filled.different) == len(filled.runs))
        return zeroed

    def _repeat(self, series: Series, runs: int, goes_on: Callable[[], bool]) -> None:
        while len(series.runs) < runs and goes_on():
            series.runs.append(self.run(series))
            self.compare([self.plain, series])


def free_sync_of(library: Library) -> Option:
    return next(option for option in library.options() if option.name == "CMP_FREE_SYNC")


def parser_of(library: Library) -> Parser:
    free_sync = free_sync_of(library)
    values = [value.strip() for value in free_sync.values.split(",")]
    # The default first.
    usual = [free_sync.default] + [v for v in values if v not in (free_sync.default, STRICTEST)]
    parser = Parser("trial", ABOUT)
    add_runs(parser, "runs of each kind (default: 6; no verdict on times with fewer)")
    parser.add_argument(
        "--modes",
        default=",".join(usual),
        metavar="MODE,...",
        help=f"values of CMP_FREE_SYNC to try, of: {free_sync.values} "
        f"(default: {','.join(usual)})",
    )
    parser.add_argument(
        "--no-fill", action="store_true", help="leave out the run with filled memory"
    )
    parser.add_argument(
        "--shake",
        type=number("0 or more", lambda value: value >= 0, int),
        default=shaking.RUNS,
        metavar="RUNS",
        help="shaken runs, where a mode that keeps less than auto gains: it is recommended only if "
        f"they agree (default: {shaking.RUNS} of each kind; 0: none)",
    )
    add_results(parser)
    parser.add_argument(
        "--save", metavar="FILE", help="write what is recommended into FILE, for run --settings FILE"
    )
    parser.add_argument("--json", action="store_true", help="print what it found as JSON")
    settings.add_settings(parser, library, ("CMP_MODE", "CMP_FREE_SYNC", "CMP_STATS"))
    add_command(parser)
    return parser


def main(arguments: list[str], find_library) -> int:
    library = find_library()
    free_sync = free_sync_of(library)
    parsed = parser_of(library).parse(arguments)
    command = command_of(parsed)
    chosen = settings.settings_of(parsed, library)
    # Each once, however it is written.
    modes = list(dict.fromkeys(mode.strip().lower() for mode in parsed.modes.split(",")))
    for mode in modes:
        if not library.is_right("CMP_FREE_SYNC", mode):
            raise Failure(f"--modes: {mode!r} is not understood; right: {free_sync.values}", 2)
    environment = preloading.own_environment()
    program_file.require_preload(command[0], environment.get("PATH"), "try")
    if parsed.save is not None:
        settings.require_writable(parsed.save)
    all_series = series_of(modes, parsed.runs, not parsed.no_fill and "CMP_FILL" not in chosen)
    interrupted = 0  # the exit code then
    with _PrivateFolder() as folder:
        program = Program(
            Measurer(command, parsed.stdin, parsed.file, parsed.tee, find_library),
            Results(parsed.code, parsed.stderr, parsed.ignore, parsed.tolerance),
            library.preload_path(folder),
            chosen,
            folder,
            1 + sum(series.times for series in all_series),
            parsed.limit,
        )
        trial = Trial(program, chosen)
        try:
            try:
                trial.measure(all_series)
            except Interrupted as signaled:
                if not all(series.runs for series in all_series[:3]):
                    raise  # nothing to compare yet
                interrupted = signaled.code
                all_series = [series for series in all_series if series.runs]
            comparisons = trial.compare(all_series)
            cure = None
            usual = all_series[2]
            filled = next((series for series in all_series if series.name == "filled"), None)
            if "CMP_FILL" not in chosen and not interrupted:
                if usual.different or (filled and filled.different):
                    try:
                        cure = trial.cure(usual, filled)
                    except Interrupted as signaled:
                        interrupted = signaled.code
            shaken: dict[str, Tried] | None = {} if parsed.shake else None
            gaining = verdict.to_shake(all_series)
            if gaining and shaken is not None and cure is None and not interrupted:
                wanted = {kind for mode in gaining for kind in shaking.KINDS_OF_MODE[mode.name]}
                kinds = [kind for kind in shaking.KINDS if kind in wanted]
                try:
                    trial.shake(kinds, parsed.shake, shaken)
                except Interrupted as signaled:
                    interrupted = signaled.code
        finally:
            progress.clear()
    shown = all_series + ([cure] if cure else [])
    found = verdict.of(shown, comparisons, chosen, command, free_sync.default, shaken)
    said = ["Interrupted: this is what the runs until then show."] if interrupted else []
    if driver.is_simulated(environment):
        said.append(driver.SIMULATED)
    found.lines[:0] = said
    if parsed.json:
        print(json.trial(command, shown, found, driver.is_simulated(environment)))
    else:
        print(text.trial(shown), "", *found.lines, sep="\n")
    if parsed.save is not None:
        saved = _save(parsed.save, found, command)
        print(saved, file=sys.stderr if parsed.json else sys.stdout)
    return interrupted or (0 if found.same else 1)


def _save(path: str, found: verdict.Verdict, command: list[str]) -> str:
    """Says what was done."""
    if found.recommended is None:
        return f"Nothing is recommended, so nothing was written to {path}."
    said = f"cmp-preload trial -- {shlex.join(command)}: {found.why}"
    settings.write_file(path, found.recommended, [said])
    return f"Written to {path}: {own_command()} run --settings {shlex.quote(path)} -- ..."


class _PrivateFolder:
    """For statistics; gone afterwards. Without one the trial goes on, with a line of warning."""

    def __enter__(self) -> str | None:
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="cmp-preload-")
            return self._folder.name
        except OSError as error:
            self._folder = None
            warn(f"no statistics: {tempfile.gettempdir()}: {error.strerror}")
            return None

    def __exit__(self, *_) -> None:
        if self._folder is not None:
            self._folder.cleanup()
