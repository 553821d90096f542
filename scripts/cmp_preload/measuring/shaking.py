"""Runs in which earlier work is held back where only cudaFree puts it before later work, and what
becomes of their results. scripts/docs/shake.md says how it works."""

from __future__ import annotations

import enum
import os
from typing import NamedTuple

from cmp_preload.measuring.measurer import Run
from cmp_preload.measuring.narrowing import TRIES, Narrowing
from cmp_preload.pool import preloading
from cmp_preload.records import sites as records
from cmp_preload.records.sites import Site

# Of each kind of site: the mode that gives up what is tried there. `none` gives up both.
MODE_OF = {"order": "none", "host": "order"}
KINDS = tuple(MODE_OF)
KINDS_OF_MODE = {"order": ("host",), "none": KINDS}
RUNS = 8  # shaken runs of each kind, if nothing else is said
CONTROLS = 2 * TRIES  # runs without a hold that must not differ
MOST_RACES = 4  # that are told apart in one go


CUT_SHORT = "a process was killed, or ended without its exit handlers (_exit)"


class Shaken(NamedTuple):
    """One shaken run."""

    seed: int
    different: str | None  # where its results differ
    sites: list[Site]  # with what was held there
    said: str | None = None  # by the pool, if it could not hold
    cut_short: bool = False  # a process of it was killed, and what it did last is missing

    @property
    def holds(self) -> int:
        return sum(site.holds for site in self.sites)

    @property
    def effective(self) -> int:
        return sum(site.effective for site in self.sites)


class Race:
    """A difference that came again. `sites`: the least that must be held for it, as far as it was
    narrowed down; empty: it comes without a hold, too."""

    def __init__(self, kind: str, first: Shaken, sites: list[Site]) -> None:
        self.kind = kind
        self.seed = first.seed
        self.different = first.different  # in its latest run
        self.sites = sites
        self.others = 0  # sites of the same mistake, see _marks
        self.complete = False  # narrowed down to the end
        self.again = 0  # so many times of
        self.tries = 0  # runs with holds at just these sites, when they were found


class Tried:
    """What was tried of one kind, as far as it went."""

    def __init__(self, kind: str, sites: list[Site], cut_short: bool = False) -> None:
        self.kind = kind
        self.sites = sites  # as they were recorded
        self.recording_cut_short = cut_short
        self.runs: list[Shaken] = []  # those that look for differences
        self.races: list[Race] = []
        self.once: list[Shaken] = []  # those with a difference that did not come again

    @property
    def holds(self) -> int:
        return sum(run.holds for run in self.runs)

    @property
    def effective(self) -> int:
        return sum(run.effective for run in self.runs)

    @property
    def effective_sites(self) -> int:
        """At which a hold at least let later work run first."""
        return len({site.id for run in self.runs for site in run.sites if site.effective})

    @property
    def cut_short(self) -> int:
        """Runs, the recording too, of which a process was killed."""
        return self.recording_cut_short + sum(run.cut_short for run in self.runs)

    @property
    def different(self) -> Shaken | None:
        return next((run for run in self.runs if run.different), None)

    def says_nothing(self) -> str | None:
        """Why runs that agree are no evidence."""
        if self.sites and not self.runs:
            return "no run of this kind ended"
        if self.sites and not self.effective:
            said = next((run.said for run in self.runs if run.said), None)
            return "no hold was effective" + (f": {said}" if said else "")
        return None


class Outcome(enum.Enum):
    AGREE = "agree"
    RACE = "race"
    NONE = "no verdict"


class Found:
    """All that is known of a program, as far as it went."""

    def __init__(self) -> None:
        self.unshaken = 0  # runs
        self.unstable: str | None = None  # where they differ
        self.reached = True  # a process of it came to the pool
        self.recording: str | None = None  # where the recording differs
        self.tried: list[Tried] = []
        self.interrupted = False

    @property
    def races(self) -> list[Race]:
        return [race for one in self.tried for race in one.races]

    @property
    def outcome(self) -> Outcome:
        if self.races and not self.unstable:
            return Outcome.RACE
        return Outcome.NONE if self.why_none() else Outcome.AGREE

    def why_none(self) -> str | None:
        """Why there is no verdict, unless there is a race."""
        if self.unstable:
            return f"runs without any hold differ among themselves ({self.unstable})"
        for one in self.tried:
            if one.once:
                run = one.once[0]
                return (
                    f"a run with seed {run.seed} differed ({run.different}), but too rarely again: "
                    "the program may vary by itself"
                )
        if self.recording:
            return f"the recording differed, in which nothing is held ({self.recording})"
        if not self.reached:
            return "no process of it made a CUDA call that reached the pool"
        return why_nothing(self.tried)


def why_nothing(tried: list[Tried]) -> str | None:
    """Why runs that agree say nothing; None: holds were effective, in each kind that the program has
    sites of."""
    if not any(one.sites for one in tried):
        only = f" of kind {tried[0].kind}" if len(tried) == 1 else ""
        said = f"no free of the program had earlier work{only} to wait for"
        cut_short = any(one.recording_cut_short for one in tried)
        return f"{said}, before {CUT_SHORT}" if cut_short else said
    for one in tried:
        if one.says_nothing():
            return f"{one.says_nothing()} ({one.kind}), and a run without says nothing"
    return None


def tried_of(kinds: list[str], recorded: records.Reports) -> list[Tried]:
    """What a recording says is to be tried."""
    return [
        Tried(kind, [site for site in recorded.sites if site.kind == kind], recorded.cut_short != 0)
        for kind in kinds
    ]


class Starter:
    """Starts the program. `start(settings, what, reports)` makes one run under the pool and leaves
    the files of its sites in the folder `reports`; `difference(run)` says where results differ."""

    def __init__(self, start, difference, folder: str) -> None:
        self._start = start
        self._difference = difference
        self._folder = folder
        self._number = 0
        self.reached = False  # by the latest run

    def record(self) -> tuple[Run, records.Reports]:
        """The device keeps the order; the host does not wait, as what it waited for would hide sites."""
        return self._run({"CMP_FREE_SYNC": "order", "CMP_SHAKE": "record"}, "recorded")

    def shake(self, kind: str, seed: int, sites: list[Site], what: str) -> Shaken:
        path = os.path.join(self._folder, "sites")
        records.write(path, sites)
        settings = {"CMP_FREE_SYNC": MODE_OF[kind], "CMP_SHAKE": str(seed), "CMP_SHAKE_SITES": path}
        run, found = self._run(settings, what)
        held = [site for site in found.sites if site.kind == kind]
        return Shaken(seed, self._difference(run), held, _said(run), bool(found.cut_short))

    def _run(self, settings: dict[str, str], what: str) -> tuple[Run, records.Reports]:
        self._number += 1
        reports = os.path.join(self._folder, f"shaken-{self._number}")
        os.mkdir(reports, 0o700)
        settings = {
            "CMP_MODE": "pool",
            **settings,
            "CMP_SHAKE_REPORT": f"{preloading.literal(reports)}/%p{records.SUFFIX}",
        }
        run = self._start(settings, what)
        found = records.read_folder(reports)
        self.reached = found.processes != 0
        return run, found


def _said(run: Run) -> str | None:
    """The pool's line about shaking."""
    lines = run.outputs["stderr"].decode(errors="replace").splitlines()
    return next((line[5:] for line in lines if line.startswith("cmp: CMP_SHAKE ")), None)


def shake(tried: Tried, seeds: range, starter, narrow: bool) -> None:
    """Shaken runs of one kind, to the first that differs; what is known stands in `tried` whenever this
    is interrupted. Without sites there is nothing to hold. `narrow`: a difference is repeated and
    narrowed down; one that does not come again is noted, and the next seed follows."""
    for seed in seeds if tried.sites else ():
        run = starter.shake(tried.kind, seed, tried.sites, f"shaken, {tried.kind}, seed {seed}")
        tried.runs.append(run)
        if run.different and (not narrow or _narrow(tried, run, starter)):
            return


def _narrow(tried: Tried, first: Shaken, starter) -> bool:
    """Whether the difference is that of a race: it comes again, and more often than not with holds at
    just those sites that it was narrowed down to."""

    def run(part: list[Site], what: str, i: int) -> str | None:
        words = f"narrowing down, {tried.kind}, seed {first.seed}, {what}, try {i + 1}"
        return starter.shake(tried.kind, first.seed, part, words).different

    def differs(part: list[Site], what: str | None = None, tries: int = TRIES) -> bool:
        what = what or f"{len(part)} of {len(tried.sites)} sites"
        return any(run(part, what, i) for i in range(tries))

    def confirm(race: Race) -> bool:
        """What varies by itself, and was taken for a race, is not seen twice in as many runs as
        without holds it was not seen once."""
        for i in range(CONTROLS):
            where = run(race.sites, "once more", i)
            race.tries += 1
            race.again += bool(where)
            race.different = where or race.different
            if race.again == 2:
                return True
        tried.races.remove(race)
        tried.once.append(first)
        return False

    if not differs(tried.sites, "all sites again"):
        tried.once.append(first)
        return False
    race = Race(tried.kind, first, tried.sites)
    tried.races.append(race)
    if differs([], "no site held", CONTROLS):
        race.sites, race.complete = [], True
        return confirm(race)
    rest = _likely_first(tried.sites, first)
    while True:
        narrowing = Narrowing(rest, differs)
        try:
            narrowing.search()
        finally:
            race.sites, race.complete = narrowing.within, narrowing.complete
        if not confirm(race):
            return bool(tried.races)
        found = set().union(*map(_marks, race.sites))
        kept = [site for site in rest if not _marks(site) & found]
        race.others = len(rest) - len(kept) - len(race.sites)
        rest = kept
        if not rest or not race.complete or len(tried.races) == MOST_RACES or not differs(rest):
            return True
        race = Race(tried.kind, first, rest)
        tried.races.append(race)


def _marks(site: Site) -> set[tuple]:
    """What sites of one mistake have in common: the same call, on other streams or by other threads, or
    the same work of a stream before a free, of which the first and the last call are sites."""
    group = (site.thread, site.earlier_stream, site.free_where, site.later_where)
    marks = {(site.id,), group} if records.UNKNOWN not in group else {(site.id,)}
    if site.earlier_where != records.UNKNOWN:
        marks.add((site.earlier_call, site.earlier_where))
    return marks


def _likely_first(sites: list[Site], run: Shaken) -> list[Site]:
    """A search is shorter where what it looks for stands at the front: sites with most effective
    holds in the run that differed."""
    effective = {site.id: (site.effective, site.holds) for site in run.sites}
    return sorted(sites, key=lambda site: effective.get(site.id, (0, 0)), reverse=True)
