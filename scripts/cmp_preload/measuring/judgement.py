"""Is one variant of a program faster than another, and can the pool be the reason?"""

from __future__ import annotations

from statistics import median

from cmp_preload.measuring import noise
from cmp_preload.measuring.noise import Found, Noise, Outcome
from cmp_preload.measuring.series import Series
from cmp_preload.records import counters

LITTLE = 0.03  # a share of the run that is not worth a word


def waits_for_memory(process: dict, seconds: float) -> int:
    """The frees that waited because of CMP_RESERVE, if that is what a run waited for notably."""
    bound = counters.wait_reasons(process).get("bound", 0)
    notable = process["wait_ns"] / 1e9 > LITTLE * seconds and bound > process["wait_calls"] / 4
    return bound if notable else 0


def share_in_calls(observed: Series) -> float:
    """The part of a run in which a thread at least was inside real calls, of the middle one of the
    runs. What is outside cannot become shorter: what another thread's call holds up ends with the
    call. Of several processes the parts are added up."""
    return min(
        1.0,
        median(
            counters.allocating_ns(run.counters["process"]) / 1e9 / run.seconds
            for run in observed.runs
        ),
    )


def page_locked_share(series: Series) -> float:
    """The part of a run that is inside real calls for page-locked memory, if it allocates that in a
    loop; else 0. Of several threads the parts are added up."""
    run = series.middle
    process = run.counters["process"]
    if not counters.allocates_page_locked_in_a_loop(process):
        return 0.0
    share = min(1.0, counters.page_locked_ns(process) / 1e9 / run.seconds)
    return share if share > LITTLE else 0.0


class Judgement:
    """Of a trial's variants: `modes` are under the pool, the two others make the real calls."""

    def __init__(self, plain: Series, observed: Series, modes: list[Series]) -> None:
        self._plain = plain
        self._observed = observed
        self.share = share_in_calls(observed)
        # The part that could be saved, as far as that is known.
        in_order = counters.allocates_in_order(observed.counters["process"])
        self.could_save = 1.0 if in_order else self.share
        compared = [s for s in (plain, observed, *modes) if not s.runs[-1].over_limit]
        self._noise = Noise([series.seconds for series in compared])

    def against_real(self, mode: Series) -> Found:
        return noise.compare(
            self._noise,
            mode.seconds,
            self._plain.seconds,
            self._observed.seconds,
            least=1 - self.could_save,
        )

    def against(self, mode: Series, usual: Series) -> Found:
        """The same of two modes. What the real calls took was all that could be saved, by either."""
        least = (1 - self.could_save) * self._plain.median / usual.median
        return noise.compare(self._noise, mode.seconds, usual.seconds, least=least)

    def of_page_locked(self, keeping: Series, usual: Series) -> Found:
        """Does the program gain by CMP_HOST? No more than its real calls take."""
        least = 1 - page_locked_share(usual)
        return noise.compare(self._noise, keeping.seconds, usual.seconds, least=least)


def is_better(all_series: list[Series], tuned: Series, usual: Series, in_calls_s: float) -> Found:
    """FASTER too if the program is as fast, and spends notably less time in real calls and waits in
    every run. `in_calls_s`: what its calls take in a replay. With what the real ones took in the
    least disturbed run that is all that settings can save."""
    times = [[run.allocation_s() for run in series.runs] for series in (usual, tuned)]
    least = 1 - min(1.0, (in_calls_s + min(times[0])) / usual.median)
    found = noise.compare(
        Noise([series.seconds for series in all_series]), tuned.seconds, usual.seconds, least=least
    )
    if least > 1 - LITTLE and found.outcome in (Outcome.MORE, Outcome.NOISY, Outcome.SHORT):
        return found._replace(outcome=Outcome.ALIKE)  # no number of runs would show a gain
    gain = min(times[0]) - max(times[1])
    if found.outcome is Outcome.ALIKE and gain > LITTLE * usual.median:
        return found._replace(outcome=Outcome.FASTER)
    return found
