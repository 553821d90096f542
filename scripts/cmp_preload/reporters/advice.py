"""How it went, and what to do: a headline, and findings with advice; for text, page and JSON alike."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from cmp_preload.console import words
from cmp_preload.records import counters, rounding, runs
from cmp_preload.records.collection import Collection
from cmp_preload.records.timeline import REAL

MORE_MEMORY = (("1.5x+1G", 1.5, 1 << 30), ("2x+4G", 2, 4 << 30), ("4x+16G", 4, 16 << 30))
LITTLE = 0.02  # a share of the run, or of its memory, that is not worth a word
MUCH_ROUNDING = 0.1
FAR_MORE = 4  # times as much
LONG = 120  # letters of a command that are too many for a line
LIMIT = "the memory limit"
SIMULATED = "Simulated CUDA device"
SMALL = 256 << 20  # bytes of the device that are not worth a word

# What frees wait for, in words, and whether the program can do without.
REASONS = {
    "copies": "copies and sets of page-locked memory",
    "host_functions": "functions of the host's in a stream",
    "graphs": "graphs",
    "stream_memory": "waits for, and writes of, values in memory",
    "managed": "there is managed memory",
    "mapped": "the host and the device share memory",
    "pageable_access": "the device can access all memory of the host",
    "exports": "other processes or devices were given memory",
    "imports": "memory or semaphores of others are used",
    "attributes": "memory was given attributes",
    "watched": "another thread keeps asking whether work is done",
}


class Finding(NamedTuple):
    what: str
    to_do: str = ""  # nothing: good to know, no more
    seconds: float = 0  # that it is about


def headline(found: Collection) -> str:
    """One sentence on how it went, one on what to do."""
    advice = next((one.to_do for one in findings(found) if one.to_do), "")
    return f"{_how_it_went(found)} " + (f"What to do: {advice}." if advice else "Nothing to do.")


def _how_it_went(found: Collection) -> str:
    if not found.processes:
        return _how_the_trace_went(found)
    totals, process = found.together["totals"], found.together["process"]
    requests = words.count(totals["requests"], "allocation")
    seconds = run_seconds(found.processes)
    cost = f"{words.seconds(counters.allocation_ns(process) / 1e9)} (threads added up)"
    if seconds:
        many = len(found.processes) > 1
        cost += f", the {'runs together' if many else 'run'} {words.seconds(seconds)}"
    if all(one.get("mode") == "off" for one in found.processes):
        return "The pool was off (CMP_MODE=off): nothing was counted."
    if not totals["requests"] and counters.allocates_in_order(process):
        kept = "" if process["kept_pools"] else " no"
        in_order = words.count(process["async_allocations"], "stream-ordered allocation")
        return f"{in_order} and no other; the driver's pools that serve them kept{kept} memory."
    if not totals["requests"]:
        return "The pool was asked for nothing."
    if all(one.get("mode") == "observe" for one in found.processes):
        return f"Observed alone: {requests}, each a real call; these took {cost}."
    rate = words.floor_percent(totals["hit_rate"])
    return f"{rate} of {requests} without a real call; real calls and waits took {cost}."


def _how_the_trace_went(found: Collection) -> str:
    whole = found.timeline
    if whole is None:
        return "The pool served nothing."
    calls = sum(whole.calls)
    page_locked = sum(one.calls for one in whole.page_locked.values())
    if not calls and page_locked:
        return f"{words.count(page_locked, 'call')} for page-locked memory, none for the device's."
    if not calls:
        return "No allocation and no free is in the trace."
    real = sum(whole.real_calls)
    took = sum(row["ns"] for row in whole.outcomes().values())
    return (
        f"{words.count(calls, 'call')}, {words.share(real, calls)} of them real"
        + (f", took {words.seconds(took / 1e9)} (threads added up)" if took else "")
        + f"; the program held {words.size(whole.peak)} at most, in blocks of "
        f"{words.size(whole.block_peak)}."
    )


def findings(found: Collection) -> list[Finding]:
    """Worst first: what was not served, errors, time, memory."""
    result = _unserved(found) + _unknown(found)
    if not found.processes:
        result += sorted(_calls_of_traces(found), key=lambda one: -one.seconds)
    else:
        process, totals = found.together["process"], found.together["totals"]
        result += _errors(process)
        times = [
            *_limit(found, totals, process),
            *_waits(found, process),
            *_real_calls(found, totals, process),
            *_page_locked(found, process),
        ]
        result += sorted(times, key=lambda one: -one.seconds)
        result += _one_of_many(found)
        result += _memory(found, process, any(one.what.startswith(LIMIT) for one in times))
    ended = [one for one in found.processes if one.get("live")]
    if ended:
        result.append(
            Finding(
                f"{words.count(len(ended), 'process')} had not ended, or was killed: "
                "what is here is as far as it came"
            )
        )
    if any(SIMULATED in runs.of(one)["gpus"] for one in found.everyone):
        result.append(Finding("it ran on the simulated CUDA: its times say nothing about a GPU"))
    lost = sum(one.recorded.lost for one in found.traces)
    if lost:
        result.append(
            Finding(
                f"{words.count(lost, 'call')} found no room in the trace, and is missing here",
                "trace to a disk with more room (CMP_TRACE)",
            )
        )
    return result


def run_seconds(processes: list[dict]) -> float:
    """How long processes ran, added up; 0 where one does not say."""
    times = [runs.of(one)["nanoseconds"] for one in processes]
    return sum(times) / 1e9 if all(time is not None for time in times) else 0.0


def _unserved(found: Collection) -> list[Finding]:
    groups: dict[tuple, list[dict]] = {}
    for one in found.unreached:
        key = (one["program"], " used CUDA, but the pool served nothing", one["reason"])
        groups.setdefault(key, []).append(one)
    for one in found.processes:
        if one.get("aside"):
            key = (one["program"], ": every call was real", one["aside"])
            groups.setdefault(key, []).append(one)
    if all(map(runs.came_to_no_gpu, found.processes)):  # else some of them need none
        for one in found.processes:
            key = (one["program"], " asked the pool for nothing", runs.NO_GPU)
            groups.setdefault(key, []).append(one)
    result = []
    for (program, what, why), its in groups.items():
        who = program if len(its) == 1 else f"{len(its)} processes of {program}"
        command = runs.of(its[0])["command"]
        if not command or len(command) > LONG:
            command = program
        result.append(Finding(f"{who}{what}: {why}", f"run cmp-preload doctor -- {command}"))
    return result


def _unknown(found: Collection) -> list[Finding]:
    later = sorted({name for one in found.processes for name in one.get("later_functions", ())})
    if not later:
        return []
    return [
        Finding(
            "functions of a later CUDA than this version of the pool knows were looked up: "
            f"{', '.join(later)}; work that they submit is not seen",
            "use a version that knows them, or compare the results with CMP_MODE=off",
        )
    ]


def _calls_of_traces(found: Collection) -> list[Finding]:
    """Where the time of calls went, as far as traces tell: not what frees waited for."""
    if found.timeline is None:
        return []
    lasted = sum(one.recorded.nanoseconds for one in found.traces)
    outcomes = found.timeline.outcomes()

    def of(*names: str) -> tuple[int, float]:
        rows = [outcomes[name] for name in names if name in outcomes]
        return sum(row["calls"] for row in rows), sum(row["ns"] for row in rows) / 1e9

    result = []
    calls, seconds = of(*REAL)
    if seconds > max(LITTLE * lasted / 1e9, 1e-3):
        result.append(
            Finding(
                f"{words.seconds(seconds)} in {words.count(calls, 'real call')} (threads added up)",
                "run cmp-preload "
                + (
                    "trial, which measures what the pool saves of them"
                    if calls == sum(found.timeline.calls)
                    else "tune, which tries other settings"
                ),
                seconds,
            )
        )
    calls, seconds = of("pooled", "waited")
    if seconds > max(LITTLE * lasted / 1e9, 1e-3):
        result.append(
            Finding(
                f"{words.seconds(seconds)} in {words.count(calls, 'free')} into the pool (threads "
                f"added up), {words.seconds(of('waited')[1])} of it in {of('waited')[0]:,} that "
                "waited for the GPU",
                "see its statistics (CMP_STATS), too, which say what frees waited for"
                if all(_left_statistics(one.recorded.settings) for one in found.traces)
                else "run it with CMP_STATS=FILE, too: its report says what frees waited for",
                seconds,
            )
        )
    return result


def _left_statistics(settings: dict[str, str]) -> bool:
    """In a file, of a process with these settings."""
    return settings.get("CMP_STATS", "").lower() not in ("", "0", "1", "off", "on")


def _errors(process: dict) -> list[Finding]:
    result = []
    if process["failed_allocations"]:
        result.append(
            Finding(
                f"{words.count(process['failed_allocations'], 'allocation')} failed, after the pool "
                "had given back what it could",
                "see whether they fail with CMP_MODE=off, too; if not, set CMP_SLACK=0% and "
                "CMP_TIER_STEPS=16, which take less memory",
            )
        )
    if process.get("double_frees"):
        result.append(
            Finding(
                f"the program freed {words.count(process['double_frees'], 'block')} twice",
                "find it with compute-sanitizer: without the pool it is an error as well",
            )
        )
    return result


def bound_wait_ns(process: dict) -> float:
    """Inside waits for the memory limit; of a library that did not count it, by their share."""
    if "bound_wait_ns" in process or not process["wait_calls"]:
        return process.get("bound_wait_ns", 0)
    return process["wait_ns"] * min(1, process.get("bound_waits", 0) / process["wait_calls"])


def _is_notable(processes: list[dict], nanoseconds: float) -> bool:
    """Against the run; where its time is not known, against what all of it can hide."""
    seconds = run_seconds(processes)
    least = LITTLE * seconds if seconds else 0.01
    return nanoseconds / 1e9 > max(least, 1e-3)


def _released_ns(totals: dict, process: dict) -> float:
    """Inside real frees of idle blocks, where most of the real frees are that."""
    released = totals.get("blocks_released", 0) > totals["real_frees"]
    return process["real_free_ns"] if released else 0


def _limit(found: Collection, totals: dict, process: dict) -> list[Finding]:
    """What the memory limit costs."""
    bound_ns, released_ns = bound_wait_ns(process), _released_ns(totals, process)
    if not _is_notable(found.processes, bound_ns + released_ns):
        return []
    parts = []
    if bound_ns:
        waited = words.count(process["bound_waits"], "free")
        parts.append(f"{words.seconds(bound_ns / 1e9)} in {waited} that waited for older work")
    if released_ns:
        freed = words.count(process["real_free_calls"], "real free")
        parts.append(f"{words.seconds(released_ns / 1e9)} in {freed} of idle blocks")
    whole = words.seconds(counters.allocation_ns(process) / 1e9)
    what = f"{LIMIT}: {', '.join(parts)}, of {whole} in real calls and waits"
    return [Finding(what, _larger_reserve(found), (bound_ns + released_ns) / 1e9)]


def _waits(found: Collection, process: dict) -> list[Finding]:
    """What other waits cost."""
    other_ns = process["wait_ns"] - bound_wait_ns(process)
    if not _is_notable(found.processes, other_ns):
        return []
    reasons = counters.wait_reasons(process)
    known = [f"{why} ({reasons[name]:,})" for name, why in REASONS.items() if name in reasons]
    if known:
        why = "; ".join(known)
        to_do = (
            "set CMP_FREE_SYNC=order, if the program synchronises before it reads results "
            "(cmp-preload trial compares the results)"
        )
    elif any(runs.setting(one, "CMP_FREE_SYNC") == "wait" for one in found.processes):
        why = "each waits for all work (CMP_FREE_SYNC=wait)"
        to_do = "set CMP_FREE_SYNC=auto, the default: it waits where the host could notice"
    elif reasons.get("unknown"):
        why, to_do = "work from before the pool, of which nothing is known", ""
    else:
        why = "the driver has no context events (before CUDA 12.5)"
        to_do = "use a driver of CUDA 12.5 or later"
    what = f"{words.seconds(other_ns / 1e9)} in frees that waited for the GPU: {why}"
    return [Finding(what, to_do, other_ns / 1e9)]


def _larger_reserve(found: Collection) -> str:
    """What to set, and what it can take of the device."""
    peak = max(one["process"]["live_peak_bytes"] for one in found.processes)
    held = max(one["process"]["reserved_peak_bytes"] for one in found.processes)
    now = {runs.setting(one, "CMP_RESERVE") for one in found.processes} - {None, "auto"}
    for value, ratio, more in MORE_MEMORY:
        most = ratio * peak + more
        if value.lower() not in now and most > 1.2 * held:
            return (
                f"set CMP_RESERVE={value} (a process may then hold up to {words.size(most)}, so far "
                f"{words.size(held)}); cmp-preload tune measures what it gains"
            )
    return "synchronise now and then: the program runs far ahead of the GPU"


def _real_calls(found: Collection, totals: dict, process: dict) -> list[Finding]:
    """What real calls cost that the limit is not the reason of."""
    if not totals["requests"]:
        return []
    real_ns = process["real_malloc_ns"] + process["real_free_ns"]
    if all(one.get("mode") == "observe" for one in found.processes):
        return _observed(found, real_ns)
    real_ns -= _released_ns(totals, process)
    if not _is_notable(found.processes, real_ns):
        return []
    calls = process["real_malloc_calls"] + (
        0 if _released_ns(totals, process) else process["real_free_calls"]
    )
    what = f"{words.seconds(real_ns / 1e9)} in {words.count(calls, 'real call')}: "
    to_do = ""
    if process.get("capture_real_calls", 0) > calls / 2:
        what += "most of them because a capture was under way"
    elif totals["real"] > totals["refills"]:
        largest = max(tier["bytes"] for tier in found.together["tiers"] if tier["real"])
        what += (
            f"{words.count(totals['real'], 'allocation')} went past the pool, of up to "
            f"{words.size(largest)}"
        )
        to_do = "set a larger CMP_MAX_BLOCK, if they are larger than an eighth of the device"
    elif totals["hit_rate"] < 0.9:
        what += "little was reused: sizes do not come again, or the GPU was not done yet with them"
        to_do = (
            "run cmp-preload tune, which tries other settings; CMP_SLACK=50% suits sizes from 2 MiB "
            "up that never repeat"
        )
    else:
        what += "the pool's first blocks of each size; a longer run has no more of them"
    return [Finding(what, to_do, real_ns / 1e9)]


def _page_locked(found: Collection, process: dict) -> list[Finding]:
    """What real calls for page-locked memory cost, where it is allocated in a loop."""
    spent_ns = counters.page_locked_ns(process)
    calls = process.get("host_real_malloc_calls", 0)
    in_a_loop = counters.allocates_page_locked_in_a_loop(process)
    if not in_a_loop or not _is_notable(found.processes, spent_ns):
        return []
    what = (
        f"{words.seconds(spent_ns / 1e9)} in real calls for page-locked memory of the host "
        f"({words.count(calls, 'allocation')})"
    )
    if process.get("host_bypassed"):
        return [Finding(f"{what}: a thread has a NUMA policy", "", spent_ns / 1e9)]
    to_do = "set a larger CMP_HOST, as 1G" if process.get("host_requests") else "set CMP_HOST=on"
    to_do += " (cmp-preload trial measures what it saves)"
    return [Finding(what, to_do, spent_ns / 1e9)]


def _observed(found: Collection, real_ns: float) -> list[Finding]:
    if _is_notable(found.processes, real_ns):
        return [
            Finding(
                f"{words.seconds(real_ns / 1e9)} in real calls is what the pool can save",
                "run cmp-preload trial, which measures what it saves",
                real_ns / 1e9,
            )
        ]
    return [Finding("real calls are a small part of the run: little to gain")]


def _one_of_many(found: Collection) -> list[Finding]:
    """A process that spends far more in allocation than its like."""
    if len(found.processes) < 4:
        return []
    slowest = sorted(found.processes, key=lambda one: counters.allocation_ns(one["process"]))
    usual = counters.allocation_ns(slowest[len(slowest) // 2]["process"])
    most = counters.allocation_ns(slowest[-1]["process"])
    if most < FAR_MORE * usual or not _is_notable([slowest[-1]], most):
        return []
    run = runs.of(slowest[-1])
    who = f"rank {run['rank']}" if runs.ranked(found.processes) else f"process {slowest[-1]['pid']}"
    where = f" on {run['host']}" if len(runs.hosts(found.processes)) > 1 else ""
    what = (
        f"{who}{where} spent {words.seconds(most / 1e9)} in real calls and waits; half of the "
        f"{len(slowest)} processes no more than {words.seconds(usual / 1e9)}"
    )
    file = shlex.quote(slowest[-1]["file"])
    return [Finding(what, f"see it alone: cmp-preload report {file}")]


def _memory(found: Collection, process: dict, limited: bool) -> list[Finding]:
    result = []
    limit = counters.limit_in_words(process)
    if limit:
        result.append(Finding(limit))
    held, live = process["reserved_peak_bytes"], process["live_peak_bytes"]
    if live and held - live > max(SMALL * len(found.processes), 0.5 * live):
        several = len(found.processes) > 1
        peaks = f", peaks of {len(found.processes)} processes added up" if several else ""
        result.append(
            Finding(
                f"the pool held {words.size(held)} at most, {words.size(held - live)} more than the "
                f"program{peaks}",
                "" if limited else "set CMP_RESERVE=1x or CMP_DECAY=1s, if others share the GPU",
            )
        )
    if process["out_of_memory_rescues"]:
        result.append(
            Finding(
                f"{words.count(process['out_of_memory_rescues'], 'call')} ran out of memory, and "
                "succeeded after idle memory was given back"
            )
        )
    small = [tier for tier in found.together["tiers"] if tier["bytes"] < 2 << 20]
    rounded = rounding.of_tiers(small)
    if rounded.by_pool > MUCH_ROUNDING * rounded.asked and live > SMALL:
        result.append(
            Finding(
                f"blocks below 2 MiB are {words.share(rounded.by_pool, rounded.asked)} larger than "
                "the driver's would be",
                "set CMP_TIER_STEPS=16, if memory is short",
            )
        )
    return result
