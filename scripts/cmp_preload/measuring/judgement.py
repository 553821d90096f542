"""Is one variant of a program faster than another, and can the pool be the reason?"""

from __future__ import annotations

import math

from cmp_preload.measuring.series import Series
from cmp_preload.records import counters

LITTLE = 0.02  # a share of the run that is not worth a word


def waits_for_memory(process: dict, seconds: float) -> int:
    """The frees that waited because of CMP_RESERVE, if that is what a run waited for notably."""
    bound = counters.wait_reasons(process).get("bound", 0)
    notable = process["wait_ns"] / 1e9 > LITTLE * seconds and bound > process["wait_calls"] / 4
    return bound if notable else 0


def time_of(one: Series, other: Series, savable_s: float = math.inf) -> float:
    """What `one` takes beside `other`, by what is known: it can have saved `savable_s` at most, and
    where runs differ by more than that, the rest is chance."""
    return max(one.median, other.median - savable_s)


def is_faster(one: Series, other: Series, savable_s: float = math.inf) -> bool:
    """By more than runs differ among themselves, and than starting a process does."""
    noise = max(0.03 * other.median, 0.005, one.spread, other.spread)
    if len(one.runs) == 1:
        noise = max(noise, 0.25 * other.median, 0.02)
    return other.median - time_of(one, other, savable_s) > noise


def savable(series: Series) -> float:
    """What its runs can lose at most: the time inside real calls and waits. (A thread that another
    one's call holds up waits no longer than that call.)"""
    return series.allocation_s() or 0.0


def savable_by_mode(usual: Series) -> float:
    """What another value of CMP_FREE_SYNC can save: waits, also those paid later; no limit is known
    where the GPU ran streams one after the other."""
    process = usual.counters["process"]
    if process.get("order_waits", 0):
        return math.inf
    return savable(usual) + process.get("paid_ns", 0) / 1e9


def is_better(tuned: Series, usual: Series, in_calls_s: float) -> bool:
    """The program is faster, or as fast and spends notably less time in real calls and waits.
    `in_calls_s`: what its calls take in a replay. With what the real ones took in the least
    disturbed run that is all that settings can save."""
    times = [[run.allocation_s() for run in series.runs] for series in (usual, tuned)]
    if is_faster(tuned, usual, in_calls_s + min(times[0])):
        return True
    if tuned.median > (1 + LITTLE) * usual.median:
        return False
    gain = min(times[0]) - max(times[1])
    return len(usual.runs) > 1 and gain > LITTLE * usual.median
