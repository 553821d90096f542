"""What a trial says in plain words: is it faster, is it the same, why not, what to set."""

from __future__ import annotations

import math
import shlex

from cmp_preload.console import words
from cmp_preload.console.arguments import own_command
from cmp_preload.console.documents import document
from cmp_preload.measuring import evidence, shaking
from cmp_preload.measuring.judgement import LITTLE, Judgement, waits_for_memory
from cmp_preload.measuring.noise import LEAST_ROUNDS, LEAST_S, MOST_ROUNDS, Found, Outcome
from cmp_preload.measuring.shaking import KINDS_OF_MODE, Tried
from cmp_preload.pool.library import flag_of
from cmp_preload.records import counters, runs


TOO_FEW = (
    f"With fewer than {LEAST_ROUNDS} runs of each any difference may be chance: -n {LEAST_ROUNDS}."
)


class Verdict:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.same = True
        self.gain: Found | None = None  # of the usual mode; None: not to be told
        self.recommended: dict[str, str] | None = None  # settings; None: nothing is
        self.why = ""  # with their gain and price
        self.rejected: list[str] = []  # what else was tried, and why not

    def say(self, line: str) -> None:
        self.lines.append(line)


def under_pool(all_series: list) -> tuple[list, list]:
    """What a mode can be chosen of, and the modes alone."""
    under = [series for series in all_series[2:] if not series.is_check]
    return under, [series for series in under if series.tried is None]


def to_shake(all_series: list) -> list:
    """Modes that would be recommended if they kept what cudaFree gives: the same results, and a gain
    beyond the noise."""
    under, modes = under_pool(all_series)
    judgement = Judgement(*all_series[:2], under)
    same = [mode for mode in modes if not mode.different]

    def gains(mode) -> bool:
        compared = (
            judgement.against_real(mode) if mode is same[0] else judgement.against(mode, same[0])
        )
        return compared.outcome is Outcome.FASTER

    return [mode for mode in same if mode.name in KINDS_OF_MODE and gains(mode)]


def of(
    all_series: list,
    comparisons: list,
    chosen: dict[str, str],
    command: list[str],
    default: str,
    shaken: dict[str, Tried] | None = None,
) -> Verdict:
    """`all_series`: without, observed, the modes with the usual one first, filled, zeroed.
    `default`: the mode that need not be typed. `shaken`: by kind, what came of it; None: the user wants none of it."""
    by_name = {series.name: series for series in all_series}
    plain, observed = by_name["without"], by_name["observed"]
    under, modes = under_pool(all_series)
    of_pools = [series for series in under if series.tried and series.tried[0] == "CMP_ASYNC_KEEP"]
    page_locked = [series for series in under if series.tried and series.tried[0] == "CMP_HOST"]
    usual = modes[0]
    found = Verdict()
    found.same = not usual.different and not observed.different
    reached = any(
        one["reached"] and not runs.came_to_no_gpu(one)
        for series in (observed, *modes)
        for run in series.runs
        for one in run.statistics
    )
    judgement = Judgement(plain, observed, under)
    of_usual = judgement.against_real(usual)
    judged = reached and not usual.different
    found.gain = of_usual if judged else None

    parts = [
        speed(of_usual, plain, usual, judgement.could_save) if judged else "",
        share_of_allocation(observed, judgement.share),
        results(all_series, comparisons),
    ]
    headline = "; ".join(part for part in parts if part) + "."
    found.say(headline[0].upper() + headline[1:])
    if judged:
        found.lines += noise(of_usual, plain, judgement.could_save)
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
    for series in [observed, *under]:
        if series.different:
            found.say(
                f"Results differ with {series.name} in {len(series.different)} of "
                f"{words.count(len(series.runs), 'run')}: {series.different[0]}."
            )
    zeros_help = reads_unwritten_memory(found, usual, by_name.get("filled"), by_name.get("zeroed"))

    if not reached or of_usual.outcome is not Outcome.FASTER:
        found.lines += why_not(observed, usual, judgement.could_save, of_usual, reached, command)
    hints(found, judgement, observed, usual, modes)
    if zeros_help:
        found.say(
            f"What that costs and gains: {own_command()} trial --fill zero -- {shlex.join(command)}"
        )
        return found
    better = better_setting(found, judgement, usual, of_pools)
    if shaken is not None:
        for mode in to_shake(all_series):
            found.say(what_shaking_showed(mode, shaken, command))
    recommend(found, judgement, modes, chosen, reached, better, shaken)
    if page_locked and not usual.different:
        recommend_keeping(found, judgement, page_locked[0], usual, chosen)
    if found.recommended is not None:
        flags = "".join(
            f" {flag_of(name)} {shlex.quote(value)}"
            for name, value in found.recommended.items()
            if (name, value) != ("CMP_FREE_SYNC", default)
        )
        found.lines += [
            f"Recommended: {own_command()} run{flags} -- {shlex.join(command)}",
            f"    {found.why[0].upper()}{found.why[1:]}.",
        ]
        if found.rejected:
            found.say(f"    Tried, not recommended: {', '.join(found.rejected)}.")
    return found


def better_setting(found: Verdict, judgement, usual, tried: list):
    """The one of `tried` with the same results that makes the usual mode faster; None: none does."""
    faster = [
        series
        for series in tried
        if not series.different
        and not usual.different
        and judgement.against(series, usual).outcome is Outcome.FASTER
    ]
    best = min(faster, key=lambda series: series.median, default=None)
    if best is not None:
        gain = judgement.against(best, usual)
        found.say(f"{best.name} is {times(gain.ratio)} times faster than {usual.name} without it.")
    elif tried:
        found.say(
            "Stream-ordered pools keep the right amount: "
            f"{' and '.join(series.name for series in tried)} gain nothing."
        )
    return best


def what_shaking_showed(mode, shaken: dict[str, Tried], command: list[str]) -> str:
    tried = tried_of(mode, shaken)
    told = f"{mode.name} was shaken (earlier work held back where only cudaFree orders it): "
    if not tried:
        return told + "it could not be, so it is not recommended."
    different = next((one for one in tried if one.different), None)
    if different is not None:
        return (
            f"{told}results differ ({different.kind}, seed {different.different.seed}: "
            f"{different.different.different}), so it is not recommended. Where: "
            f"{own_command()} shake --kind {different.kind} -- {shlex.join(command)}"
        )
    if shaking.why_nothing(tried):
        return (
            f"{told}results are the same, but {shaking.why_nothing(tried)}, so it is not "
            f"recommended. {evidence.of(tried)}."
        )
    return (
        f"{told}results are the same. {evidence.of(tried)}. {evidence.NO_PROOF} What it cannot find: "
        f"{document('shake')}."
    )


def tried_of(mode, shaken: dict[str, Tried]) -> list[Tried]:
    """What was tried of what a mode gives up; empty if not all of it was."""
    kinds = KINDS_OF_MODE[mode.name]
    return [shaken[kind] for kind in kinds] if all(kind in shaken for kind in kinds) else []


def withstands(mode, shaken: dict[str, Tried] | None) -> bool:
    """Whether the program was shaken, and its results did not change."""
    if shaken is None or mode.name not in KINDS_OF_MODE:
        return False
    tried = tried_of(mode, shaken)
    return not shaking.why_nothing(tried) and not any(one.different for one in tried)


def recommend(
    found: Verdict,
    judgement,
    modes: list,
    chosen: dict[str, str],
    reached: bool,
    better,
    shaken: dict[str, Tried] | None,
) -> None:
    """The mode that keeps most of those with the same results, or a faster one that withstood being
    shaken, if the program gains by it; what it costs; and why none of the others. `better`: see
    better_setting."""
    same = [mode for mode in modes if not mode.different]
    if not same or (modes[0].different and not reached):
        found.say("Run this program without the pool.")
        return
    keeping = [mode for mode in same if shaken is None or mode.name not in KINDS_OF_MODE]
    withstanding = [mode for mode in same if withstands(mode, shaken)]
    usual = next((mode for mode in same if mode in keeping or mode in withstanding), None)
    if usual is None:
        return
    faster = [
        mode
        for mode in withstanding
        if mode is not usual and judgement.against(mode, usual).outcome is Outcome.FASTER
    ]
    best = min(faster, key=lambda mode: mode.median, default=usual)
    if better is not None and best is modes[0]:
        chosen = {**chosen, better.tried[0]: better.tried[1]}
        best = better
    gain = judgement.against_real(best)
    if not reached or gain.outcome is not Outcome.FASTER:
        return
    process = best.counters["process"]
    idle = counters.held_peak(process) - process["live_peak_bytes"]
    price = f"up to {words.size(idle)} of memory that the pool keeps idle"
    found.why = (
        f"gain: {times(gain.ratio)} times faster with {best.name}; price: "
        f"{price if idle > 0 else 'no memory'}"
    )
    if best in withstanding:
        found.why += ", and less of what cudaFree gives, which shaken runs did not miss"
    found.recommended = {**chosen, "CMP_FREE_SYNC": best.settings["CMP_FREE_SYNC"]}
    found.rejected = [
        f"{mode.name} ({why_rejected(judgement, mode, best, shaken)})"
        for mode in modes
        if mode is not best
    ]


def recommend_keeping(found: Verdict, judgement, keeping, usual, chosen: dict[str, str]) -> None:
    """CMP_HOST, with what is recommended already, or with the usual mode."""
    calls = usual.counters["process"]["host_real_malloc_calls"]
    tried = f"Page-locked memory: {words.count(calls, 'real allocation')} a run; {keeping.name}"
    if keeping.different:
        found.say(f"{tried} is not recommended: other results.")
        return
    compared = judgement.of_page_locked(keeping, usual)
    if compared.outcome is not Outcome.FASTER:
        more = f"too few runs to say whether it is faster; -n {compared.rounds} would tell"
        why = more if compared.outcome is Outcome.MORE else "not shown to be faster"
        found.say(f"{tried} was tried: {why}.")
        return
    idle = keeping.counters["process"]["host_reserved_peak_bytes"]
    found.say(f"{tried} is {times(compared.ratio)} times faster than {usual.name}.")
    gain = (
        f"with {keeping.name} {times(compared.ratio)} times faster than without it; price: up to "
        f"{words.size(idle)} of page-locked memory that the pool holds"
    )
    found.why = f"{found.why}; {gain}" if found.recommended is not None else f"gain: {gain}"
    found.recommended = {
        **(found.recommended or {**chosen, "CMP_FREE_SYNC": usual.name}),
        "CMP_HOST": keeping.settings["CMP_HOST"],
    }


def why_rejected(judgement, mode, best, shaken: dict[str, Tried] | None) -> str:
    if mode.different:
        return "other results"
    compared = judgement.against(mode, best)
    if compared.outcome is Outcome.FASTER:
        told = f"{times(compared.ratio)} times faster than {best.name}"
        tried = tried_of(mode, shaken) if shaken and mode.name in KINDS_OF_MODE else []
        if any(one.different for one in tried):
            return f"{told}, but results differ when it is shaken"
        return f"{told}, but {tried and shaking.why_nothing(tried) or 'it keeps less'}"
    return {
        Outcome.SLOWER: f"slower than {best.name}",
        Outcome.ALIKE: f"no faster than {best.name}",
    }.get(compared.outcome, f"not shown to be faster than {best.name}")


def reads_unwritten_memory(found: Verdict, usual, filled, zeroed) -> bool:
    """Says so if it shows. True if zeros in new memory are needed, and help."""
    shows = filled is not None and filled.different and not usual.different
    # What also a fill with something else mends is a matter of time, not of what is there.
    spoils = filled is None or (bool(filled.runs) and len(filled.different) == len(filled.runs))
    helps = (
        zeroed is not None and not zeroed.different and (shows or (bool(usual.different) and spoils))
    )
    if shows:
        found.say(
            f"With new memory filled with {filled.settings['CMP_FILL']}: {filled.different[0]}."
        )
    if shows and zeroed is not None and zeroed.different:
        found.say(
            "With zeros there they differ, too: it may read memory before it writes there, or its "
            "results depend on time."
        )
    elif shows or helps:
        found.say(
            "It reads memory before it writes there; what is in new memory is not defined, with "
            "the pool often old data."
        )
    if helps:
        found.say(
            "With zeros there the results are as without the pool, in "
            f"{words.count(len(zeroed.runs), 'run')}."
        )
    return helps


def times(ratio: float) -> str:
    """Rounded down: no more is said than was measured."""
    ratio += 1e-9  # 10 is not 9.99...
    digits = 0 if ratio >= 10 else 1 if ratio >= 1.2 else 2
    return f"{math.floor(ratio * 10**digits) / 10**digits:.{digits}f}"


def speed(found: Found, plain, usual, share: float) -> str:
    """Never more than what its calls explain, and nothing that its runs differ by anyway."""
    if found.outcome is Outcome.FASTER:
        explained = plain.median / usual.median > 1.01 * found.ratio
        return f"{times(found.ratio)} times faster with {usual.name}" + (
            ", all that its time in allocation can explain" if explained else ""
        )
    if found.outcome is Outcome.SLOWER:
        return f"{times(1 / found.ratio)} times SLOWER with {usual.name}"
    if found.outcome is Outcome.ALIKE or share < LITTLE:
        return f"no faster with {usual.name} than without"
    if found.outcome is Outcome.MORE:
        return f"too few runs to say whether it is faster with {usual.name}"
    if found.outcome is Outcome.SHORT:
        return f"runs are too short to say whether it is faster with {usual.name}"
    return f"too noisy to say whether it is faster with {usual.name}"


def noise(found: Found, plain, share: float) -> list[str]:
    """What could have been seen at all, and how to see more."""
    runs, least = len(plain.runs), words.share(found.shows - 1, 1)
    if found.outcome in (Outcome.FASTER, Outcome.SLOWER):
        return [f"In {runs} runs of each, a difference of {least} or more shows."]
    if share < LITTLE:
        return []
    if found.outcome is Outcome.ALIKE:
        return [f"A difference of {least} would have shown in {runs} runs of each."]
    if runs < LEAST_ROUNDS:
        return [TOO_FEW]
    if found.outcome is Outcome.SHORT:
        return [too_short(plain.median)]
    if found.outcome is Outcome.MORE:
        return [
            f"Runs differ among themselves: less than {least} does not show in {runs} of each. "
            f"{found.rounds} would tell: -n {found.rounds}."
        ]
    even = f", and even {MOST_ROUNDS} would not tell" if runs < MOST_ROUNDS else ""
    return [
        f"Runs differ among themselves: less than {least} does not show in {runs} of each{even}. "
        "Try again when the machine does nothing else."
    ]


def too_short(seconds: float) -> str:
    return (
        f"They take {words.seconds(seconds)}, and starts of a process alone differ by "
        f"{words.seconds(LEAST_S)}: no number of runs would tell. Give it more work."
    )


def share_of_allocation(observed, share: float) -> str:
    """Of the time that passed; a sum over threads beside it, if that is more."""
    inside = observed.allocation_s()
    if inside is None:
        return ""
    told = f"allocation was {words.share(share, 1)} of the run"
    if inside > 1.1 * share * observed.median:
        told += f" ({words.seconds(inside)}, summed over all threads)"
    held_up = observed.counters["process"].get("held_up_ns", 0) / 1e9
    if held_up > LITTLE * observed.median:
        told += f" and kept other threads' submissions waiting for {words.seconds(held_up)}"
    return told


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


def why_not(
    observed, usual, share: float, judged: Found, reached: bool, command: list[str]
) -> list[str]:
    """Why there is nothing to gain, as far as that is known."""
    if not reached:
        everyone = [one for run in usual.runs for one in run.statistics]
        reason = next((one["reason"] for one in everyone if not one["reached"]), None)
        if reason is not None:
            return [f"Nothing to gain: the pool served nothing: {reason}."]
        what = runs.NO_GPU if everyone else "no process of it made a CUDA call that reached the pool"
        return [
            f"Nothing to gain: {what}; {own_command()} doctor -- {shlex.join(command)} may say why."
        ]
    inside = observed.allocation_s()
    totals, process = usual.counters["totals"], usual.counters["process"]
    if inside is not None and share < LITTLE:
        calls = observed.counters["totals"].get("requests", 0)
        return [
            f"Nothing to gain: its {words.count(calls, 'allocation')} took {words.seconds(inside)} "
            f"of {words.seconds(observed.median)}."
        ]
    if totals.get("requests") and totals["hit_rate"] < 0.5:
        return [
            "Little was reused: it allocates memory that it keeps, sizes that do not come again, or "
            "more before the GPU is done with what was freed; the first allocation of each block is "
            "a real call. A longer run may tell more."
        ]
    if process["wait_ns"] / 1e9 > LITTLE * usual.median:
        return [f"Frees still waited for the GPU: {counters.waits_in_words(process)}."]
    if judged.outcome in (Outcome.MORE, Outcome.NOISY, Outcome.SHORT):
        return []
    little = inside is not None and inside < LITTLE * observed.median
    if little and counters.allocates_in_order(process):
        calls = words.count(process["async_allocations"], "stream-ordered allocation")
        return [f"Its {calls} come from the driver's own pool, as without."]
    return [
        "The time of allocation is saved, but the run is as long: it waits for the GPU or others."
    ]


def hints(found: Verdict, judgement, observed, usual, modes: list) -> None:
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
        if mode.different or usual.different:
            continue
        compared = judgement.against(mode, usual)
        if compared.outcome is Outcome.FASTER:
            found.say(
                f"--free-sync {mode.name} is {times(compared.ratio)} times faster than "
                f"{usual.name}, with the same results here; it keeps less of what cudaFree gives "
                f"({document('free-sync')})."
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
