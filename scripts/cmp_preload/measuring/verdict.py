"""What a trial says in plain words: is it faster, is it the same, why not, what to set."""

from __future__ import annotations

import shlex

from cmp_preload.console import words
from cmp_preload.console.arguments import own_command
from cmp_preload.measuring.judgement import (
    LITTLE,
    is_faster,
    savable,
    savable_by_mode,
    time_of,
    waits_for_memory,
)
from cmp_preload.pool.library import flag_of
from cmp_preload.records import counters


class Verdict:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.same = True

    def say(self, line: str) -> None:
        self.lines.append(line)


def of(all_series: list, comparisons: list, chosen: dict[str, str], command: list[str]) -> Verdict:
    """`all_series`: without, observed, the modes with the default first, filled, zeroed."""
    by_name = {series.name: series for series in all_series}
    plain, observed = by_name["without"], by_name["observed"]
    modes = [series for series in all_series[2:] if series.name not in ("filled", "zeroed")]
    usual = modes[0]
    found = Verdict()
    found.same = not usual.different and not observed.different
    reached = any(
        one["reached"]
        for series in (observed, *modes)
        for run in series.runs
        for one in run.statistics
    )

    parts = [
        speed(usual, plain, savable(observed)) if reached and not usual.different else "",
        share_of_allocation(observed),
        results(all_series, comparisons),
    ]
    headline = "; ".join(part for part in parts if part) + "."
    found.say(headline[0].upper() + headline[1:])
    for comparison in comparisons:
        if comparison.incomparable:
            found.say(
                f"{comparison.name} was not compared: it varies without the pool "
                f"({comparison.incomparable}). Say what is noise with --ignore REGEX."
            )
        elif comparison.varying:
            found.say(
                f"Numbers in {words.count(comparison.varying, 'line')} of {comparison.name} "
                "vary without the pool and were not compared."
            )
        if comparison.measured:
            found.say(
                f"Times and rates in {words.count(len(comparison.measured), 'line')} of "
                f"{comparison.name} differ, as they may (line {min(comparison.measured) + 1})."
            )
    for series in [observed, *modes]:
        if series.different:
            found.say(
                f"Results differ with {series.name} in {len(series.different)} of "
                f"{words.count(len(series.runs), 'run')}: {series.different[0]}."
            )
    recommended = dict(chosen)
    zeros_help = reads_unwritten_memory(found, usual, by_name.get("filled"), by_name.get("zeroed"))
    if zeros_help:
        recommended["CMP_FILL"] = "zero"

    if not reached or not is_faster(usual, plain, savable(observed)):
        found.say(why_not(observed, usual, reached, command))
    hints(found, observed, usual, modes)
    best = by_name["zeroed"] if zeros_help else next((m for m in modes if not m.different), None)
    if best is None or (usual.different and not reached):
        found.say("Run this program without the pool.")
        return found
    if best in modes[1:]:
        recommended["CMP_FREE_SYNC"] = best.name
    if reached and is_faster(best, plain, savable(observed)):
        flags = "".join(
            f" {flag_of(name)} {shlex.quote(value)}" for name, value in recommended.items()
        )
        found.say(f"Recommended: {own_command()} run{flags} -- {shlex.join(command)}")
    return found


def reads_unwritten_memory(found: Verdict, usual, filled, zeroed) -> bool:
    """Says so if it shows. True if zeros in new memory are needed, and help."""
    shows = filled is not None and filled.different and not usual.different
    helps = zeroed is not None and not zeroed.different and (shows or bool(usual.different))
    if shows:
        found.say(
            f"With new memory filled with {filled.settings['CMP_FILL']}: {filled.different[0]}."
        )
    if shows or helps:
        found.say(
            "It reads memory before it writes there; what is in new memory is not defined, with "
            "the pool often old data."
            + (" With zeros there the results are as without the pool." if helps else "")
        )
    return helps


def speed(usual, plain, savable_s: float) -> str:
    def times(ratio: float) -> str:
        return (
            f"{ratio:.0f}"
            if ratio >= 9.95
            else f"{ratio:.1f}" if ratio >= 1.195 else f"{ratio:.2f}"
        )

    if is_faster(usual, plain, savable_s):
        ratio = plain.median / time_of(usual, plain, savable_s)
        return f"{times(ratio)} times faster with {usual.name}"
    if is_faster(plain, usual):
        return f"{times(usual.median / plain.median)} times SLOWER with {usual.name}"
    ratio = plain.median / usual.median
    if ratio >= 1.05 or ratio <= 0.95:
        word = f"{times(ratio)} times faster" if ratio > 1 else f"{times(1 / ratio)} times slower"
        if is_faster(usual, plain):
            return f"{word} with {usual.name}, which its time in allocation does not explain"
        return f"{word} with {usual.name}, which is within what runs differ by"
    return f"As fast with {usual.name} as without"


def share_of_allocation(observed) -> str:
    inside = observed.allocation_s()
    if inside is None:
        return ""
    if inside <= observed.median:
        return f"allocation was {words.share(inside, observed.median)} of the run"
    return (
        f"allocation took {words.seconds(inside)}, summed over all threads, in a run of "
        f"{words.seconds(observed.median)}"
    )


def results(all_series: list, comparisons: list) -> str:
    compared = [series for series in all_series[1:] if series.name != "zeroed"]
    runs = sum(len(series.runs) for series in compared)
    different = sum(len(series.different) for series in compared)
    what = "results"
    if all(comparison.incomparable or comparison.is_empty() for comparison in comparisons):
        what = "exit codes (it wrote nothing that was compared: see --stderr and --file)"
    if different == 0:
        return f"{what} identical in {words.count(runs, 'run')}"
    return f"{what} identical in {runs - different} of {words.count(runs, 'run')}"


def why_not(observed, usual, reached: bool, command: list[str]) -> str:
    """Why there is nothing to gain."""
    if not reached:
        reason = next((one["reason"] for run in usual.runs for one in run.statistics), None)
        if reason is not None:
            return f"Nothing to gain: the pool served nothing: {reason}."
        return (
            "Nothing to gain: no process of it made a CUDA call that reached the pool; "
            f"cmp-preload doctor {shlex.quote(command[0])} may say why."
        )
    inside = observed.allocation_s()
    totals, process = usual.counters["totals"], usual.counters["process"]
    if inside is not None and inside < LITTLE * observed.median:
        calls = observed.counters["totals"].get("requests", 0)
        return (
            f"Nothing to gain: its {words.count(calls, 'allocation')} took {words.seconds(inside)} "
            f"of {words.seconds(observed.median)}."
        )
    if totals.get("hit_rate", 0) < 0.5:
        return (
            "Little was reused: it allocates memory that it keeps, sizes that do not come again, or "
            "more before the GPU is done with what was freed; the first allocation of each block is "
            "a real call. A longer run may tell more."
        )
    if process["wait_ns"] / 1e9 > LITTLE * usual.median:
        return f"Frees still waited for the GPU: {counters.waits_in_words(process)}."
    if observed.median > usual.median:
        return "A longer run, or more of them (-n), would tell."
    return (
        "The time of allocation is saved, but the run is as long: it waits for the GPU or others."
    )


def hints(found: Verdict, observed, usual, modes: list) -> None:
    process, totals = usual.counters["process"], usual.counters["totals"]
    if not process:
        return
    live, held = process["live_peak_bytes"], process["reserved_peak_bytes"]
    limit = counters.limit_in_words(process)
    if limit or held - live > LITTLE * held:
        found.say(
            f"Memory: the program held up to {words.size(live)}, {words.size(held)} with what the "
            "pool kept idle" + (f"; {limit}." if limit else ".")
        )
    bound = waits_for_memory(process, usual.median)
    if bound:
        found.say(
            f"{bound:,} frees waited because the pool had reached its memory limit (CMP_RESERVE); "
            "cmp-preload tune measures whether a larger one gains anything."
        )
    for mode in modes[1:]:
        if is_faster(mode, usual, savable_by_mode(usual)) and not mode.different:
            ratio = usual.median / time_of(mode, usual, savable_by_mode(usual))
            found.say(
                f"--free-sync {mode.name} is {ratio:.1f} times faster than "
                f"{usual.name}, with the same results here; it keeps less of what cudaFree gives "
                "(scripts/docs/free-sync.md)."
            )
    oversized = totals["real"] - process.get("capture_real_calls", 0)
    if oversized > LITTLE * totals["requests"]:
        found.say(
            f"{words.count(oversized, 'request')} went past the pool because of their size: "
            "a larger --max-block keeps them."
        )
    failed = process["failed_allocations"] - observed.counters["process"].get(
        "failed_allocations", 0
    )
    if failed > 0:
        found.say(
            f"{words.count(failed, 'allocation')} more failed than without: memory is short here."
        )
    if process["out_of_memory_rescues"]:
        found.say(
            f"Memory was short {process['out_of_memory_rescues']:,} times; the pool gave back what "
            "was idle."
        )
