"""How much do runs differ by themselves, and is one variant of a program faster than another by more
than that? From wall times alone. The formulae, and how often this errs: scripts/docs/trials.md.

Variants run in turn, so a round has a run of each, and what drifts moves all of a round. Two things
are asked, as no single one withstands every kind of noise: a difference must be larger than the
ratios of runs of one round vary (that fails where runs have two speeds, and most have the same), and
it must come again round after round (that fails where rounds are few)."""

from __future__ import annotations

import enum
import functools
import itertools
import math
import random
from statistics import median, quantiles
from typing import NamedTuple

LEAST_ROUNDS = 6  # with fewer, noise wins every round too often, whatever its size
MOST_ROUNDS = 40  # more are not asked for
CHANCE = 0.001  # how often a difference may be said to be there that is not
BEYOND = 3.0  # standard errors of a difference: with them CHANCE is kept with room
PART = 0.25  # of a difference that a round must show
LEAST = math.log(1.03)  # what is not worth a word, and starts of processes differ by
LEAST_S = 0.005  # the same, in seconds: no number of runs shows less
WORTH = math.log(1.10)  # a trial that cannot tell such a difference asks for more runs


class Outcome(enum.Enum):
    FASTER = "faster"
    SLOWER = "slower"
    ALIKE = "alike"  # a difference of WORTH would have shown
    MORE = "more runs are needed"
    NOISY = "too noisy"
    SHORT = "the runs are too short"  # for LEAST_S to be little of them


class Found(NamedTuple):
    outcome: Outcome
    ratio: float  # the others' time, divided by that of the one
    rounds: int  # with MORE: so many are needed
    shows: float  # the least ratio that shows in these rounds; inf: none


class Noise:
    """Of the variants of one program: the times of each, by rounds."""

    def __init__(self, variants: list[list[float]]) -> None:
        logarithms = [[math.log(time) for time in times] for times in variants]
        rounds = min(map(len, logarithms), default=0)
        self._variants = len(variants)
        if rounds < 2 or self._variants < 2:
            self.spread = math.inf
            return
        deviations = []
        for one, other in itertools.combinations(logarithms, 2):
            ratios = [a - b for a, b in zip(one, other)]
            middle = median(ratios)
            deviations += [abs(ratio - middle) for ratio in ratios]
        # Of the logarithm of the ratio of two runs of a round. Three of four deviations are smaller:
        # in a normal distribution 1.1503 standard deviations. Those from a median of the same few
        # runs are too small.
        quartile = quantiles(deviations, n=4)[2]
        self.spread = quartile / 1.1503 * rounds / (rounds - 1)

    def error(self, rounds: int) -> float:
        """The standard error of a median over so many rounds."""
        return 1.2533 * self.spread / math.sqrt(rounds)

    def shows(self, rounds: int) -> float:
        """The least difference that shows. Of few runs the spread itself is uncertain."""
        freedom = (self._variants - 1) * (rounds - 1)
        return max(LEAST, BEYOND * (1 + 4 / freedom) * self.error(rounds))


@functools.lru_cache(maxsize=None)
def least_wins(rounds: int, of: int) -> int:
    """In how many rounds must one of `of` runs be the fastest, so that CHANCE alone does not? If no
    number is enough, in all."""
    tail = 0.0
    for wins in range(rounds, 0, -1):
        tail += math.comb(rounds, wins) * (of - 1) ** (rounds - wins) / of**rounds
        if tail > CHANCE:
            return min(rounds, wins + 1)
    return 1


def compare(noise: Noise, one: list[float], *others: list[float], least: float = 0.0) -> Found:
    """Is `one` faster than the first of `others`, and than every other of them in the same round?
    `least`: the part of the first's time that it takes at least, by what is known otherwise: where
    it took less, the rest is chance."""
    runs = list(zip(one, *others))
    rounds = len(runs)
    before = median(run[1] for run in runs)
    after = max(median(run[0] for run in runs), min(least, 1.0) * before)
    difference = math.log(before / after)
    if rounds < LEAST_ROUNDS:
        return Found(Outcome.MORE, before / after, LEAST_ROUNDS, math.inf)

    starts = -math.log(1 - LEAST_S / before) if before > LEAST_S else math.inf
    shows = max(noise.shows(rounds), starts)

    def found(outcome: Outcome, needed: int = rounds) -> Found:
        return Found(outcome, before / after, needed, math.exp(min(shows, 700)))

    margin = math.exp(PART * abs(difference))
    if difference > 0:
        wins = sum(run[0] * margin < min(run[1:]) for run in runs)
    else:
        wins = sum(run[0] > max(run[1:]) * margin for run in runs)
    if abs(difference) > shows:
        if wins >= least_wins(rounds, len(runs[0])):
            return found(Outcome.FASTER if difference > 0 else Outcome.SLOWER)
    elif starts > max(WORTH, abs(difference) / 2):
        return found(Outcome.SHORT)
    elif abs(difference) + 2 * noise.error(rounds) < WORTH:
        return found(Outcome.ALIKE)
    # What is just as large as what shows is seen every other time.
    goal = max(WORTH, abs(difference) / 2) / 1.25
    for needed in range(rounds + 1, MOST_ROUNDS + 1):
        enough = wins * needed >= rounds * least_wins(needed, len(runs[0]))
        if noise.shows(needed) <= goal and (enough or abs(difference) <= shows):
            return found(Outcome.MORE, needed)
    return found(Outcome.NOISY)


def order_of(a_round: int, variants: int) -> list[int]:
    """In which order the variants of a round run. Of each two rounds one has the other's order
    reversed, so that what drifts weighs on all alike; the next two have another one, so that what
    comes at regular times does not always meet the same. (Nearly no interval does so in 6 rounds
    with the numbers from 40 on; with most others some do: tests/scripts/test_noise.py.)"""
    order = list(range(variants))
    random.Random(40 + a_round // 2).shuffle(order)
    return order[::-1] if a_round % 2 else order
