"""How good CMP_SHAKE is: does it find the planted races of races.cpp, name them rightly, and leave
programs without a race alone? And what it costs.

  CMP_BUILD=FOLDER shake_races.py [--simulated] [--runs 8] [--seed-sets 1] [--right-runs 8]
                                  [--plain-runs 2] [--first-seed 1] [--limit SECONDS] [--jobs N]
                                  [--narrow] [--narrow-runs 3] [--loop] [PROGRAM ...]

Each program is run once without the pool, --plain-runs times without the order (which must not
change anything: the races are rare), once recording, and with up to --runs seeds in each of the
seed sets. --narrow: which site, held alone, is enough. --jobs is for the simulated CUDA: on a GPU
processes take turns, and what one waits for changes the others' races. On an H200:

  --limit 140 --plain-runs 1 --right-runs 2 --loop
  --limit 140 --plain-runs 1 --right-runs 1 --runs 2 --narrow --narrow-runs 2

 --loop: the loop of four streams, and what trying it
costs. Exit code 1: a race that fewer than 95 of 100 seed sets found, or a false alarm.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import programs

VIRTUAL_CLOCK = programs.BUILD / "programs" / "virtual_clock.so"
NEEDED = 0.95


class Program:
    def __init__(self, line: str, options: argparse.Namespace, folder: pathlib.Path) -> None:
        self.name, self.mode, kind = line.split()
        self.races = kind == "race"
        self.options = options
        self.sites = folder / f"{self.name}.sites"
        self.folder = folder
        self.said = ""
        self.shows_by_itself = False  # a race may, with nothing held

    def run(self, preload: bool = True, **settings: str) -> str:
        env = programs.environment(self.options.simulated) | settings
        if self.options.simulated:
            # What takes 5 ms there takes as long here, in virtual time.
            env |= {"CMPSIM_HOLD_NS": "5000000", "CMPSIM_MEMORY": "1G"}
        if preload:
            clock = [str(VIRTUAL_CLOCK)] if self.options.simulated else []
            env["LD_PRELOAD"] = ":".join([*clock, str(programs.LIBRARY)])
            env["CMP_FREE_SYNC"] = self.mode
        done = subprocess.run([str(programs.BUILD / "races"), self.name], env=env, text=True,
                              capture_output=True, timeout=120, check=False)
        if done.returncode != 0 or done.stderr:
            raise RuntimeError(f"{self.name} {settings}: exit code {done.returncode}: "
                               f"{done.stdout}{done.stderr}")
        return done.stdout

    def start(self) -> None:
        """The reference, and where the order counts."""
        self.said = self.run(preload=False)
        for _ in range(self.options.plain_runs):
            if self.run() != self.said:
                raise RuntimeError(f"{self.name}: another result before anything was tried")
        recorded = self.run(CMP_SHAKE="record", CMP_SHAKE_REPORT=str(self.sites))
        self.shows_by_itself = recorded != self.said
        if self.shows_by_itself and not self.races:
            raise RuntimeError(f"{self.name}: another result of the recording run")

    def shake(self, seed: int, sites: pathlib.Path | None = None) -> bool:
        """Does the result change?"""
        return self.run(CMP_SHAKE=str(seed), CMP_SHAKE_SITES=str(sites or self.sites)) != self.said

    def runs_until_found(self, seed_set: int) -> int | None:
        first = self.options.first_seed + seed_set * 1000
        for run in range(self.options.runs):
            if self.shake(first + run):
                return run + 1
        return None

    def narrow(self) -> list[list[str]]:
        """The sites of which each alone is enough."""
        found = []
        for line in self.sites.read_text().splitlines():
            if line.startswith("#"):
                continue
            alone = self.folder / f"{self.name}.alone"
            alone.write_text(f"#cmp-shake-sites 1\n{line}\n")
            first = self.options.first_seed + 500
            if any(self.shake(first + run, alone) for run in range(self.options.narrow_runs)):
                found.append(line.split("\t"))
        return found


def measure_loop(options: argparse.Namespace, folder: pathlib.Path) -> None:
    """The loop over four streams: what the order costs, and what trying it costs."""
    sites = folder / "loop.sites"
    size = ["--iterations", "200", "--repetitions", "2"] if options.simulated else []
    for what, settings in (
            ("auto", {"CMP_FREE_SYNC": "auto"}),
            ("none", {"CMP_FREE_SYNC": "none"}),
            ("none, recorded", {"CMP_SHAKE": "record", "CMP_SHAKE_REPORT": str(sites)}),
            ("none, shaken", {"CMP_SHAKE": "1", "CMP_SHAKE_SITES": str(sites)}),
            ("none, shaken again", {"CMP_SHAKE": "2", "CMP_SHAKE_SITES": str(sites)})):
        if options.simulated:
            settings |= {"CMPSIM_HOLD_NS": "5000000"}
        done = programs.run(str(programs.BUILD / "loop"), "--streams", "4", *size, preload=True,
                            simulated=options.simulated, **{"CMP_FREE_SYNC": "none"} | settings)
        if done.code != 0:
            raise RuntimeError(done.everything())
        figures = json.loads(done.output)
        shake = done.statistics.get("shake", {})
        print(f"loop of four streams | {what} | {figures['malloc_us']} us an iteration, kernels "
              f"alone {figures['alone_us']} | {shake}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--seed-sets", type=int, default=1)
    parser.add_argument("--right-runs", type=int, default=8)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--limit", type=float, default=1e9)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--plain-runs", type=int, default=2)
    parser.add_argument("--narrow", action="store_true")
    parser.add_argument("--narrow-runs", type=int, default=3)
    parser.add_argument("--loop", action="store_true")
    parser.add_argument("programs", nargs="*")
    options = parser.parse_args()
    end = time.monotonic() + options.limit
    listed = subprocess.run([str(programs.BUILD / "races"), "--list"], text=True, check=True,
                            env=programs.environment(options.simulated), capture_output=True).stdout
    good = True
    counts = {"programs": 0, "found": 0, "sets": 0, "right runs": 0, "false alarms": 0}
    with tempfile.TemporaryDirectory(prefix="cmp-races-") as place, \
         concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        folder = pathlib.Path(place)
        if options.loop:
            measure_loop(options, folder)
        every = [Program(line, options, folder) for line in listed.splitlines()]
        for program in every:
            if options.programs and program.name not in options.programs:
                continue
            if time.monotonic() > end:
                print("the time is over")
                break
            counts["programs"] += 1
            try:
                program.start()
                if program.races:
                    runs = list(pool.map(program.runs_until_found, range(options.seed_sets)))
                    found = [run for run in runs if run is not None]
                    share = len(found) / len(runs)
                    counts["found"] += len(found)
                    counts["sets"] += len(runs)
                    good &= share >= NEEDED
                    words = f"found by {len(found)} of {len(runs)} seed sets"
                    if found:
                        words += f", after {sum(found) / len(found):.1f} runs, at most {max(found)}"
                    if program.shows_by_itself:
                        words += "; it showed in the recording, too"
                    if options.narrow and time.monotonic() < end:
                        named = [f"{site[6]} on {site[8]}, then {site[12]} on {site[14]}"
                                 for site in program.narrow()]
                        words += f"; alone enough: {' or '.join(named) or 'none'}"
                else:
                    seeds = range(options.first_seed, options.first_seed + options.right_runs)
                    alarms = sum(pool.map(program.shake, seeds))
                    counts["right runs"] += options.right_runs
                    counts["false alarms"] += alarms
                    good &= alarms == 0
                    words = f"{alarms} false alarms in {options.right_runs} runs"
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                good = False
                words = f"failed: {error}"
            print(f"{program.name} | {program.mode} | {words}", flush=True)
    print(", ".join(f"{name} {count}" for name, count in counts.items()))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
