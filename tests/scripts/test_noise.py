"""The noise model of a trial, on invented times: how often it says what is not so, and how often it
misses what is. Every seed is fixed. The table in scripts/docs/trials.md: test_noise.py --table."""

import functools
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
MODES = 3  # the default of --modes: so many of the pool's
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
    interval, begin, part = r.uniform(2, 12), r.random(), r.uniform(0.3, 0.7)
    for i in itertools.count():
        there = (i / interval + begin) % 1 < part
        yield math.exp(r.gauss(0, 0.005)) * (slower if there else 1)


def one_in(r, interval):
    """As with what always meets the first run of a round, or the second."""
    begin, slower = r.randrange(interval), r.choice((0.8, 1.1, 1.3, 2))
    for i in itertools.count():
        yield math.exp(r.gauss(0, 0.003)) * (slower if i % interval == begin else 1)


def warming(r, most):
    """Caches fill, or clocks fall, over the first runs."""
    much, runs = r.uniform(0.2, most), r.uniform(1, 15)
    for i in itertools.count():
        yield math.exp(r.gauss(0, 0.01)) * (1 + much * math.exp(-i / runs))


def first_alone(r, most):
    yield r.uniform(1.5, most)
    yield from normal(r, 0.01)


def step(r, slower):
    """From some run on all is different."""
    begin, slower = r.randrange(1, 5 * ROUNDS), r.choice((slower, 1 / slower))
    for i in itertools.count():
        yield math.exp(r.gauss(0, 0.004)) * (slower if i >= begin else 1)


def coarse(r, unit):
    """As with a program that looks now and then whether it is done."""
    begin = r.random()
    while True:
        yield unit * math.ceil((1 + abs(r.gauss(0, unit / 3))) / unit + begin)


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
    "one run in two": (one_in, 2),
    "one run in three": (one_in, 3),
    "one run in five": (one_in, 5),
    "the first runs are slow": (warming, 2),
    "the first run alone is slow": (first_alone, 5),
    "a step": (step, 1.4),
    "in units of 5%": (coarse, 0.05),
}
order_of = functools.cache(noise.order_of)  # of a few, asked for half a million times
CLAIMS = (Outcome.FASTER, Outcome.SLOWER)
QUIET = ("normal, 1%", "drift, 0.7% a run", "random walk, 2% a run")


def invented(source, takes, rounds, checks=0):
    """The times of variants that take so long by themselves, in turn as a trial runs them; `checks`
    run once."""
    times = [[] for _ in takes]
    for i in range(rounds):
        for which in order_of(i, len(takes) + checks):
            if which < len(takes):
                times[which].append(takes[which] * next(source))
            elif i == 0:
                next(source)
    return times


def trial(kind, gain, r, rounds=ROUNDS, modes=MODES):
    """As a trial judges: without, observed, and the pool's modes."""
    make, amount = KINDS[kind]
    times = invented(make(r, amount), [1, 1] + [1 / gain] * modes, rounds, checks=1)
    return noise.compare(Noise(times), times[2], times[0], times[1])


def whole_trial(kind, gain, r, rounds=ROUNDS):
    """All that a trial compares: each mode with the real calls, and with the usual one. What it
    claims, if it claims anything."""
    make, amount = KINDS[kind]
    plain, observed, *modes = times = invented(
        make(r, amount), [1, 1] + [1 / gain] * MODES, rounds, checks=r.randrange(2)
    )
    spread = Noise(times)
    all_found = [noise.compare(spread, mode, plain, observed) for mode in modes]
    all_found += [noise.compare(spread, mode, modes[0]) for mode in modes[1:]]
    return next((one for one in all_found if one.outcome in CLAIMS), all_found[0])


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
    alike, gains = shares(whole_trial, kind, 1, count), shares(trial, kind, GAIN, count // 4)
    claimed = sum(alike[outcome] for outcome in CLAIMS)
    said = [gains[o] for o in (Outcome.FASTER, Outcome.MORE, Outcome.NOISY)]
    return [100 * share for share in (claimed, *said, 1 - sum(said))]


class Properties(TestCase):
    def test_without_a_gain_none_is_claimed(self):
        """In one of 1,000 trials at most, whatever the noise."""
        for judge, count in ((whole_trial, 1500), (of_two, 1000), (of_modes, 300)):
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

    def asked(self, kind, r, count):
        """Of trials with a gain those that ask for more runs: what the second says that has as many
        as were asked for, or the third."""
        asked = []
        for _ in range(count):
            rounds, outcomes = ROUNDS, []
            for _ in range(3):
                result = trial(kind, GAIN, r, rounds)
                outcomes.append(result.outcome)
                if result.outcome is not Outcome.MORE:
                    break
                self.assertGreater(result.rounds, rounds)
                self.assertLessEqual(result.rounds, noise.MOST_ROUNDS)
                rounds = result.rounds
            if len(outcomes) > 1:
                asked.append(outcomes[-1])
        return asked

    def test_as_many_runs_as_asked_for_are_enough(self):
        """A second trial with that many, and a third, find the gain."""
        r = random.Random(1)
        for kind in (
            "normal, 3%",
            "outliers, 5% of the runs",
            "heavy tails, 2%",
            "skewed, 5%",
            "the first runs are slow",
            "the first run alone is slow",
            "in units of 5%",
        ):
            asked = self.asked(kind, r, 60)
            with self.subTest(kind=kind):
                self.assertGreater(len(asked), 2)
                self.assertGreaterEqual(asked.count(Outcome.FASTER), 0.9 * len(asked))

    def test_more_runs_of_several_speeds(self):
        """They were asked for in vain, and then it says so."""
        r = random.Random(2)
        for kind in ("two speeds, 30% of the runs", "a neighbour for 3 runs", "one run in two"):
            asked = self.asked(kind, r, 100)
            with self.subTest(kind=kind):
                self.assertGreaterEqual(asked.count(Outcome.NOISY), 0.6 * len(asked))

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

    def test_what_comes_at_regular_intervals_does_not_always_meet_the_same(self):
        """In all rounds one of two modes, and never the other: of any interval, from any begin."""
        for variants, checks in ((2, 0), (3, 1), (4, 1), (5, 0), (5, 1)):
            order = []  # of runs: round and variant
            for i in range(ROUNDS):
                its = noise.order_of(i, variants + checks)
                order += [(i, which) for which in its if which < variants or i == 0]
            first = 2 if variants > 2 else 0
            pairs = [(first, mode) for mode in range(first + 1, variants)]
            met = tried = 0
            for interval, begin, part in itertools.product(
                (2 + i / 20 for i in range(200)), (i / 15 for i in range(15)), (0.4, 0.5, 0.6)
            ):
                there = [[False] * (variants + checks) for _ in range(ROUNDS)]
                for k, (i, which) in enumerate(order):
                    there[i][which] = (k / interval + begin) % 1 < part
                tried += 1
                met += any(
                    all(row[one] and not row[other] for row in there)
                    or all(row[other] and not row[one] for row in there)
                    for one, other in pairs
                )
            with self.subTest(variants=variants, checks=checks):
                self.assertLessEqual(met / tried, noise.CHANCE)

    def test_short_runs(self):
        """A difference below 5 ms is how a process starts, however often it comes again; and no
        number of runs is asked for that could not show it."""
        r = random.Random(4)

        def found(before, after, rounds=ROUNDS):
            takes = [before, before, after]
            times = invented(normal(r, 0.02), takes, rounds)
            return noise.compare(Noise(times), times[2], times[0], times[1])

        for _ in range(50):
            self.assertEqual(found(0.006, 0.0026).outcome, Outcome.SHORT)
            self.assertEqual(found(0.0026, 0.006).outcome, Outcome.SHORT)
            self.assertEqual(found(0.003, 0.003).outcome, Outcome.SHORT)
            self.assertEqual(found(0.020, 0.018).outcome, Outcome.SHORT)
            self.assertEqual(found(0.020, 0.020, 40).outcome, Outcome.SHORT)
            self.assertEqual(found(0.020, 0.012).outcome, Outcome.FASTER)
            self.assertEqual(found(0.200, 0.160).outcome, Outcome.FASTER)
            self.assertEqual(found(0.012, 0.040).outcome, Outcome.SLOWER)

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
