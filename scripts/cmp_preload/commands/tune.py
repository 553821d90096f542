"""cmp-preload tune: records a program's allocations once, replays them under other settings of the
pool, and measures the program with the best ones."""

from __future__ import annotations

import math
import os
import shlex
import tempfile

from cmp_preload.console import progress, words
from cmp_preload.console.arguments import Parser, add_command, add_runs, command_of
from cmp_preload.console.errors import Failure, Interrupted
from cmp_preload.diagnosis import driver
from cmp_preload.measuring.judgement import is_better, page_locked_share, waits_for_memory
from cmp_preload.measuring.measurer import Measurer, Run
from cmp_preload.measuring.noise import LEAST_ROUNDS, Found, Outcome, order_of
from cmp_preload.measuring.program import Program
from cmp_preload.measuring.replays import Replays
from cmp_preload.measuring.results import Results
from cmp_preload.measuring.series import ASYNC_KEEPS, KEEPS_PAGE_LOCKED, Series
from cmp_preload.measuring.verdict import TOO_FEW, times, too_short
from cmp_preload.pool import preloading, program_file, settings
from cmp_preload.pool.library import Library
from cmp_preload.records import counters, traces
from cmp_preload.reporters import text

ABOUT = """Records PROGRAM's allocations once, replays them under other settings, then runs PROGRAM
with the defaults and with the best settings in turn. Prints the environment to use, what the
replays predict and what was measured; or that the defaults are right. What is tried changes how
much the pool keeps and where, never what the program sees; settings that are given stay. Of a
program that calls cudaMallocAsync CMP_ASYNC_KEEP is tried, too, which no replay shows."""

CANDIDATES = {
    "CMP_TIER_STEPS": ("1", "2", "8"),
    "CMP_THREAD_CACHE_MAX_BLOCK": ("256K", "2097151"),
    "CMP_THREAD_CACHE_BYTES": ("4M", "64M", "256M"),
    "CMP_BATCH_BYTES": ("512K", "8M", "32M"),
    "CMP_SLACK": ("0%", "12.5%", "50%"),
    "CMP_MAX_BLOCK": ("64G",),  # by itself an eighth of the device
}
MORE_MEMORY = {"CMP_RESERVE": ("1.5x+1G",)}  # measured beside the others: it has a price


class Tuning:
    """Runs of the program under the pool."""

    def __init__(self, program: Program, folder: str) -> None:
        self._program = program
        self._folder = folder

    def run(self, chosen: dict[str, str], what: str) -> Run:
        run = self._program.run({**chosen, "CMP_MODE": "pool"}, what)
        if run.code != 0:
            raise Failure(f"{self._program.name} fails under the pool: {run.failure()}")
        if self._program.folder is None:
            raise Failure("nothing to tune by: no statistics")
        return run

    def record(self, fixed: dict[str, str]) -> tuple[str, Run]:
        """The trace of the process with the most calls, and the run."""
        folder = os.path.join(self._folder, "traces")
        os.mkdir(folder)
        run = self.run({**fixed, "CMP_TRACE": preloading.file_of_each(folder)}, "recorded")
        paths = [os.path.join(folder, name) for name in os.listdir(folder)]
        if not paths:
            raise Failure(
                "nothing to tune: no process of it made a CUDA call that reached the pool"
            )
        return max(paths, key=lambda path: len(traces.read(path))), run

    def measure(self, all_series: list[Series]) -> None:
        """In turn."""
        for i in range(all_series[0].times):
            for which in order_of(i, len(all_series)):
                series = all_series[which]
                series.runs.append(self.run(series.settings, series.name))


def tune(tuning: Tuning, library: Library, fixed: dict[str, str], runs: int) -> int:
    """The exit code."""
    path, run = tuning.record(fixed)
    recorded = traces.read(path)
    replays = Replays(path, library)
    in_order = counters.allocates_in_order(run.counters["process"])
    if len(recorded) == 0:
        found, without = {}, {"ns": 0, "reserved": 0}  # no call to replay
        reached = without
    else:
        found, without, reached = replays.search(fixed, CANDIDATES)
    tried = [("the defaults", {}, without)]
    if found:
        tried.append(("tuned", found, reached))
    bound = 0
    if "CMP_RESERVE" not in fixed and len(recorded) != 0:
        more, _, reached = replays.search({**fixed, **found}, MORE_MEMORY)
        # What frees wait for is not in a trace.
        bound = waits_for_memory(run.counters["process"], run.seconds)
        if bound:
            more = {name: values[0] for name, values in MORE_MEMORY.items()}
        if more:
            tried.append(("more memory", {**found, **more}, reached))
    if in_order and "CMP_ASYNC_KEEP" not in fixed:
        for value in ASYNC_KEEPS:
            tried.append((f"async {value}", {**found, "CMP_ASYNC_KEEP": value}, reached))
    recording = Series("recorded", fixed, 1)
    recording.runs.append(run)
    page_locked_s = 0.0  # inside its real calls, which no replay makes
    if "CMP_HOST" not in fixed and page_locked_share(recording):
        page_locked_s = counters.page_locked_ns(run.counters["process"]) / 1e9
        tried.append(("page-locked memory kept", {**found, **KEEPS_PAGE_LOCKED}, reached))
    progress.clear()
    print(
        f"{words.count(len(recorded), 'call')} of {recorded.program} recorded, "
        f"{words.count(replays.count, 'replay')}."
    )
    what = "Your settings" if fixed else "The defaults"
    if len(tried) == 1:
        print(
            f"{what} are right: no other setting makes its {words.seconds(without['ns'] / 1e9)} in "
            "allocation calls notably less."
        )
        print_rejected(replays.rejected)
        return 0
    all_series = [Series(name, {**fixed, **chosen}, runs) for name, chosen, _ in tried]
    interrupted = 0  # the exit code then
    try:
        tuning.measure(all_series)
    except Interrupted as signaled:
        if not all(series.runs for series in all_series):
            raise  # nothing to compare yet
        interrupted = signaled.code
    progress.clear()
    if interrupted:
        print("Interrupted: this is what the runs until then show.")
    best, gain, judged = 0, None, None
    for i in range(1, len(tried)):
        in_calls_s = math.inf if in_order else tried[best][2]["ns"] / 1e9
        if "CMP_HOST" in tried[i][1]:
            in_calls_s += page_locked_s
        judged = is_better(all_series, all_series[i], all_series[best], in_calls_s)
        if judged.outcome is Outcome.FASTER:
            best, gain = i, judged
    _, chosen, reached = tried[best or -1]
    flags = "".join(f" {name}={shlex.quote(value)}" for name, value in chosen.items())
    print(
        f"{'Use' if best else 'Tried'}:{flags}\n"
        f"Predicted: {words.seconds(without['ns'] / 1e9)} in allocation calls would be "
        f"{words.seconds(reached['ns'] / 1e9)}, peak memory {words.size(without['reserved'])} would "
        f"be {words.size(reached['reserved'])}."
    )
    if bound:
        print(
            f"{words.count(bound, 'free')} waited because the pool had reached its memory limit, "
            "which no replay shows: measured with CMP_RESERVE="
            f"{MORE_MEMORY['CMP_RESERVE'][0]}, too."
        )
    if in_order:
        print(
            "No replay shows what its stream-ordered allocations cost: measured with other values "
            "of CMP_ASYNC_KEEP, too."
        )
    print("\n" + text.tuning(all_series) + "\n")
    if best:
        print(gain_and_price(gain, all_series[0], all_series[best]))
    elif judged.outcome in (Outcome.MORE, Outcome.NOISY, Outcome.SHORT):
        print(unclear(judged, all_series[0]))
    else:
        print(f"{what} are right: the program gains nothing by these.")
    for series in all_series[1:]:
        if series is not all_series[best] and best:
            print(f"Measured, not recommended: {series.name}.")
    print_rejected(replays.rejected)
    return interrupted


def gain_and_price(gain: Found, usual: Series, tuned: Series) -> str:
    peaks = [counters.held_peak(series.counters["process"]) for series in (usual, tuned)]
    calls = [words.seconds(series.allocation_s()) for series in (usual, tuned)]
    faster = (
        f"{times(gain.ratio)} times faster"
        if gain.ratio >= 1.03
        else f"{calls[1]} in real calls and waits in place of {calls[0]}"
    )
    more = peaks[1] - peaks[0]
    prices = [f"{words.size(more)} more memory at the peak"] if more > 0 else []
    # What the program holds of it by itself is counted only where the pool serves it.
    held = [series.counters["process"].get("host_reserved_peak_bytes", 0) for series in (usual, tuned)]
    if held[1] > held[0]:
        prices.append(f"up to {words.size(held[1])} of page-locked memory that the pool holds")
    return f"Gain: {faster}. Price: {' and '.join(prices) or 'no more memory'}."


def unclear(judged: Found, usual: Series) -> str:
    if judged.outcome is Outcome.SHORT:
        return (
            "Runs are too short to say whether the program gains by these. "
            + too_short(usual.median)
        )
    if len(usual.runs) < LEAST_ROUNDS:
        return TOO_FEW
    if judged.outcome is Outcome.MORE:
        return (
            f"Whether the program gains by these, {judged.rounds} runs of each would tell: "
            f"-n {judged.rounds}."
        )
    return (
        "Too noisy to say whether the program gains by these. Try again when the machine does "
        "nothing else."
    )


def print_rejected(rejected: list[tuple[str, str, float]]) -> None:
    if rejected:
        tried = ", ".join(f"{name}={value} {part:.2f}" for name, value, part in rejected)
        print(f"Replayed, not kept (time in calls, where it is 1 without the setting): {tried}.")


def parser_of(library: Library) -> Parser:
    parser = Parser("tune", ABOUT)
    add_runs(parser, "runs with each choice of settings (default: 6; no verdict on times with fewer)")
    settings.add_settings(parser, library, ("CMP_MODE", "CMP_STATS", "CMP_TRACE"))
    add_command(parser)
    return parser


def main(arguments: list[str], find_library) -> int:
    library = find_library()
    parsed = parser_of(library).parse(arguments)
    command = command_of(parsed)
    fixed = settings.settings_of(parsed, library)
    program_file.require_preload(command[0], preloading.own_environment().get("PATH"), "tune")
    library.replay_program()  # a missing one is told before the first run
    with tempfile.TemporaryDirectory(prefix="cmp-preload-") as folder:
        measurer = Measurer(command, parsed.stdin, [], parsed.tee, find_library)
        program = Program(measurer, Results(), library.preload_path(folder), {}, folder)
        tuning = Tuning(program, folder)
        code = tune(tuning, library, fixed, parsed.runs)
    if driver.is_simulated(preloading.own_environment()):
        print(driver.SIMULATED)
    return code
