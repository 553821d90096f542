"""The noise model of a trial, on invented times: how often it says what is not so, and how often it
misses what is. Every seed is fixed. The table in scripts/docs/trials.md: test_noise.py --table."""

import itertools
import math
import random
import re
import sys
import unittest

from command import SOURCE, TestCase, main, measured
from cmp_preload.measuring import noise, verdict
from cmp_preload.measuring.noise import Noise, Outcome
from cmp_preload.measuring.series import series_of

ROUNDS = 6  # the default of -n
GAIN = 1.10

# Each kind: what the times of one run after the other are multiplied by, without end.


def normal(r, spread):
    while True:
        yield math.exp(r.gauss(0, spread))


def outliers(r, often):
    """Now and then a run takes 1.2 to 3 times as long."""
    while True:
        yield math.exp(r.gauss(0, 0.01)) * (r.uniform(1.2, 3) if r.random() < often else 1)


def two_speeds(r, often):
    """As with two kinds of cores, or clocks."""
    while True:
        yield math.exp(r.gauss(0, 0.003)) * (1.3 if r.random() < often else 1)


def heavy_tails(r, spread):
    """Student's distribution with two degrees of freedom."""
    while True:
        yield math.exp(spread * r.gauss(0, 1) / math.sqrt(r.expovariate(1)))


def skewed(r, spread):
    while True:
        yield 1 + r.expovariate(1 / spread)


def drift(r, spread):
    slope = r.choice((-1, 1)) * spread / 3
    for i in itertools.count():
        yield math.exp(r.gauss(0, spread / 2) + slope * i)


def walk(r, spread):
    """Each run is like the one before it."""
    at = 0
    while True:
        at += r.gauss(0, spread)
        yield math.exp(at)


def neighbour(r, change):
    """Another program that comes, takes a part of the machine, and goes."""
    there = r.random() < 0.5
    while True:
        there ^= r.random() < change
        yield math.exp(r.gauss(0, 0.005)) * (1.4 if there else 1)


def at_intervals(r, slower):
    """Something that comes as regularly as the runs do."""
    interval, begin = r.uniform(2, 12), r.random()
    for i in itertools.count():
        there = (i / interval + begin) % 1 < 0.5
        yield math.exp(r.gauss(0, 0.005)) * (slower if there else 1)


KINDS = {
    "normal, 1%": (normal, 0.01),
    "normal, 3%": (normal, 0.03),
    "normal, 10%": (normal, 0.10),
    "drift, 0.7% a run": (drift, 0.02),
    "random walk, 2% a run": (walk, 0.02),
    "outliers, 5% of the runs": (outliers, 0.05),
    "outliers, 30% of the runs": (outliers, 0.30),
    "two speeds, half of the runs": (two_speeds, 0.5),
    "two speeds, 30% of the runs": (two_speeds, 0.3),
    "heavy tails, 2%": (heavy_tails, 0.02),
    "skewed, 5%": (skewed, 0.05),
    "a neighbour for 3 runs": (neighbour, 0.3),
    "a neighbour for 10 runs": (neighbour, 0.1),
    "at regular intervals": (at_intervals, 1.3),
}
QUIET = ("normal, 1%", "drift, 0.7% a run", "random walk, 2% a run")


def invented(source, takes, rounds):
    """The times of variants that take so long by themselves, in turn as a trial runs them."""
    times = [[] for _ in takes]
    for i in range(rounds):
        for which in noise.order_of(i, len(takes)):
            times[which].append(takes[which] * next(source))
    return times


def trial(kind, gain, r, rounds=ROUNDS, modes=1):
    """As a trial judges: without, observed, and the pool's modes."""
    make, amount = KINDS[kind]
    times = invented(make(r, amount), [1, 1] + [1 / gain] * modes, rounds)
    return noise.compare(Noise(times), times[2], times[0], times[1])


def of_two(kind, gain, r, rounds=ROUNDS):
    """As tune judges: the defaults and other settings."""
    make, amount = KINDS[kind]
    times = invented(make(r, amount), [1, 1 / gain], rounds)
    return noise.compare(Noise(times), times[1], times[0])


def of_modes(kind, gain, r, rounds=ROUNDS):
    """As a trial judges a mode beside the usual one: both gain."""
    make, amount = KINDS[kind]
    times = invented(make(r, amount), [1.5, 1.5, 1, 1, 1 / gain], rounds)
    return noise.compare(Noise(times), times[4], times[2])


def shares(judge, kind, gain, count):
    """How often there is which outcome."""
    r = random.Random(f"{judge.__name__} {kind} {gain}")
    outcomes = [judge(kind, gain, r).outcome for _ in range(count)]
    return {outcome: outcomes.count(outcome) / count for outcome in Outcome}


def row(kind, count):
    """Percentages, as in the table."""
    alike, gains = shares(trial, kind, 1, count), shares(trial, kind, GAIN, count // 4)
    claimed = alike[Outcome.FASTER] + alike[Outcome.SLOWER]
    said = [gains[o] for o in (Outcome.FASTER, Outcome.MORE, Outcome.NOISY)]
    return [100 * share for share in (claimed, *said, 1 - sum(said))]


class Properties(TestCase):
    def test_without_a_gain_none_is_claimed(self):
        """In one of 1,000 trials at most, whatever the noise."""
        for judge, count in ((trial, 1000), (of_two, 600), (of_modes, 300)):
            together = 0.0
            for kind in KINDS:
                found = shares(judge, kind, 1, count)
                for outcome in (Outcome.FASTER, Outcome.SLOWER):
                    with self.subTest(judge=judge.__name__, kind=kind, outcome=outcome):
                        self.assertLessEqual(found[outcome] * count, 1 + count / 1000)
                together += found[Outcome.FASTER] / len(KINDS)
            self.assertLessEqual(together, 0.001, judge.__name__)

    def test_a_gain_is_found_or_more_runs_are_asked_for(self):
        for kind in KINDS:
            found = shares(trial, kind, GAIN, 200)
            with self.subTest(kind=kind):
                missed = found[Outcome.ALIKE] + found[Outcome.SLOWER]
                self.assertLessEqual(missed, 0.05)
                if kind in QUIET:
                    self.assertGreaterEqual(found[Outcome.FASTER] + found[Outcome.MORE], 0.95)
        self.assertEqual(shares(trial, "normal, 1%", GAIN, 200)[Outcome.FASTER], 1)

    def test_as_many_runs_as_asked_for_are_enough(self):
        """A second trial with that many, and a third, find the gain."""
        r = random.Random(1)
        for kind in ("normal, 3%", "heavy tails, 2%", "skewed, 5%"):
            found = 0
            for _ in range(60):
                rounds = ROUNDS
                for _ in range(3):
                    result = trial(kind, GAIN, r, rounds)
                    if result.outcome is not Outcome.MORE:
                        break
                    self.assertGreater(result.rounds, rounds)
                    self.assertLessEqual(result.rounds, noise.MOST_ROUNDS)
                    rounds = result.rounds
                found += result.outcome is Outcome.FASTER
            with self.subTest(kind=kind):
                self.assertGreaterEqual(found, 0.9 * 60)

    def test_a_busy_machine(self):
        """It is too noisy; but what is far beyond the noise is seen."""
        kind = "outliers, 30% of the runs"
        found = shares(trial, kind, 1, 200)
        self.assertGreater(found[Outcome.NOISY], 0.9)
        found = shares(trial, kind, 10, 200)
        self.assertGreater(found[Outcome.FASTER], 0.9)

    def test_few_rounds_claim_nothing(self):
        for rounds in range(1, noise.LEAST_ROUNDS):
            times = [[1.0] * rounds, [1.0] * rounds, [0.1] * rounds]
            found = noise.compare(Noise(times), times[2], times[0], times[1])
            self.assertEqual((found.outcome, found.rounds), (Outcome.MORE, noise.LEAST_ROUNDS))

    def test_how_many_rounds_must_be_won(self):
        """Fewer would be won by chance more often, by who has no better chance than others."""
        for rounds, of in ((6, 3), (7, 3), (12, 3), (20, 3), (40, 3), (10, 2), (40, 2)):
            wins = noise.least_wins(rounds, of)

            def by_chance(least):
                ways = (math.comb(rounds, n) * (of - 1) ** (rounds - n) for n in range(least, rounds + 1))
                return sum(ways) / of**rounds

            self.assertGreater(by_chance(wins - 1), noise.CHANCE)
            if wins < rounds:
                self.assertLessEqual(by_chance(wins), noise.CHANCE)

    def test_the_order_of_rounds(self):
        for variants in range(1, 7):
            for i in range(0, 20, 2):
                order = noise.order_of(i, variants)
                self.assertEqual(sorted(order), list(range(variants)))
                self.assertEqual(noise.order_of(i + 1, variants), order[::-1])
        self.assertGreater(len({tuple(noise.order_of(i, 5)) for i in range(0, 20, 2)}), 5)

    def test_the_table_in_the_documents(self):
        text = (SOURCE / "scripts" / "docs" / "trials.md").read_text(encoding="utf-8")
        told = {}
        for line in text.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if cells[0] in KINDS:
                told[cells[0]] = [float(cell.strip("<% ")) for cell in cells[1:]]
        self.assertEqual(list(told), list(KINDS))
        for kind, figures in told.items():
            for figure, here in zip(figures, row(kind, 400), strict=True):
                with self.subTest(kind=kind, figure=figure):
                    self.assertAlmostEqual(figure, here, delta=14)  # of 100 trials


class Claims(TestCase):
    def test_no_claim_contradicts_what_its_calls_took(self):
        """Whatever the times: of a run of which allocation was a tenth, no more than that is
        gained. The numbers are read from the words."""
        r = random.Random(7)
        claims = 0
        for _ in range(400):
            make, amount = KINDS[r.choice(list(KINDS))]
            share, gain = r.random() ** 2, math.exp(r.uniform(-0.5, 2))
            counted = r.uniform(0.9, 1.3)  # an observed run may take longer
            takes = [1, counted, 1 / gain, 1 / gain]
            compared = series_of(["auto", "none"], ROUNDS, False)
            for series, times in zip(compared, invented(make(r, amount), takes, ROUNDS), strict=True):
                inside = share if series.name == "observed" else 0
                series.runs = [measured(time, inside * time) for time in times]
            told = "\n".join(verdict.of(compared, [], {}, ["app"], "auto").lines)
            faster = re.search(r"([\d.]+) times faster with auto", told)
            took = float(re.search(r"allocation was ([\d.]+)% of the run", told)[1])
            if faster is None:
                self.assertNotIn("Recommended", told)
                continue
            claims += 1
            most = 1 / max(1e-9, 1 - (took + 0.5) / 100)  # as rounded
            self.assertLessEqual(float(faster[1]), most, told)
            self.assertGreater(took, 2.5, told)
            self.assertIn("Recommended", told)
        self.assertGreater(claims, 50)


if __name__ == "__main__":
    if sys.argv[1:] == ["--table"]:
        for name in KINDS:
            claimed, *said = row(name, 8000)
            shown = "< 0.1%" if claimed < 0.1 else f"{claimed:.1f}%"
            print(f"| {name} | {shown} | " + " | ".join(f"{share:.0f}%" for share in said) + " |")
    else:
        main()
