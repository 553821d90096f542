"""The pool and every alternative side by side: prints nanoseconds and ratios, writes them as JSON.

  compare_all.py [--quick] [--simulated] [--only NAMES] [--limit SECONDS] [--output FILE]
                 [--trace FILE ...] [--repetitions N] [--commit TEXT]

The alternatives that are not on this machine are listed with the reason; the adaptors of others'
are compiled as they are found (the toolkit's CUB, PyTorch's and librmm's wheels). Each alternative
has processes of its own, which take turns at each row; a repetition goes over all rows of a part.
Figures are the medians of the repetitions, with the least and the most; a ratio is the
alternative's figure over the pool's: above 1 the pool is faster. FILE.json and FILE.md (default:
compare_all in the build folder) are written anew after each row, so that a run which is cut short
leaves what it has. --only: of parts and alternatives, those alone, separated by commas. --trace:
traces (CMP_TRACE) to replay beside those that it records itself. Times are those of this machine
at this moment: it says when they were too noisy.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import pathlib
import shlex
import signal
import statistics
import subprocess
import sys
import time

import programs
from against import alternatives, report, rows
from against.alternatives import Alternative, Failed, Missing, Process
from against.rows import Part, Row

STARTING_AT_ONCE = 3
REQUEST_S = 20  # a request that takes longer has failed
START_S = 60  # a process that takes longer to start, too
NO_TIME = "no time was left"


def recorded(simulated: bool, folder: pathlib.Path) -> tuple[dict[str, pathlib.Path], list[str]]:
    """Traces of programs, and what was not recorded, why."""
    here = programs.HERE
    commands = {"churn": ([str(programs.BUILD / "churn"), "2", "60" if simulated else "500"], {})}
    missing = []
    uncached = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    if not simulated and importlib.util.find_spec("torch"):
        commands["training"] = ([sys.executable, str(here / "torch_train.py"), "20"], uncached)
        commands["transformer"] = ([sys.executable, str(here / "torch_transformer.py"), "20"],
                                   uncached)
    else:
        missing.append("trace of PyTorch: this Python has no torch, or CUDA is simulated")
    running = {}
    for name, (command, settings) in commands.items():
        env = programs.environment(simulated) | settings
        env |= {"LD_PRELOAD": str(programs.LIBRARY), "CMP_TRACE": str(folder / f"{name}.trace")}
        (folder / f"{name}.trace").unlink(missing_ok=True)
        running[name] = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL)
    traces = {}
    for name, process in running.items():
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        path = folder / f"{name}.trace"
        if code == 0 and path.exists():
            traces[name] = path
        else:
            missing.append(f"trace of {name}: exit code {code}")
    return traces, missing


class Cell:
    """The figures of one alternative in one row."""

    def __init__(self) -> None:
        self.runs: list[dict] = []
        self.missing: str | None = None

    def result(self) -> dict:
        if not self.runs:
            return {"missing": self.missing or NO_TIME}
        found = [run["ns"] for run in self.runs]
        cell = {"ns": statistics.median(found), "least_ns": min(found), "most_ns": max(found),
                "runs": found, "noisy": max(found) > report.NOISY * min(found)}
        for name in ("mean_ns", "alone_ns", "worst_ns"):
            if name in self.runs[0]:
                cell[name] = statistics.median(run[name] for run in self.runs)
        if self.missing:
            cell["failed"] = self.missing
        return cell


class Comparison:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.begin = time.monotonic()
        self.end = self.begin + arguments.limit
        self.size = (rows.SIMULATED if arguments.simulated else
                     rows.QUICK if arguments.quick else rows.FULL)
        self.repetitions = arguments.repetitions or self.size.repetitions
        self.alternatives = alternatives.every()
        self.parts: list[Part] = []
        self.cells: dict[tuple[str, str, str], Cell] = {}
        self.processes: dict[str, Process] = {}
        self.failures: dict[str, int] = {}  # of this part
        self.machine = {**report.driver(arguments.simulated), "load_before": os.getloadavg()[0],
                        "cores": len(os.sched_getaffinity(0))}
        self.commit = arguments.commit or report.commit()
        self.notes: list[str] = []
        self.said: dict[str, str] = {}  # on stderr, such as that the pool stepped aside
        self.complete = False
        self.json_file = pathlib.Path(f"{arguments.output}.json").resolve()
        self.json_file.parent.mkdir(parents=True, exist_ok=True)

    # ---- Measuring

    def choose(self) -> None:
        """The parts and alternatives that are wanted, compiled, with their traces recorded."""
        only = set(filter(None, self.arguments.only.split(",")))
        empty = {"replay": pathlib.Path()}  # the part's name is known before its traces are
        parts = {part.name for part in rows.parts(self.size, self.arguments.simulated, empty)}
        names = {one.name for one in self.alternatives}
        if unknown := only - parts - names:
            sys.exit(f"compare_all: no such part or alternative: {', '.join(sorted(unknown))}\n"
                     f"parts: {', '.join(sorted(parts))}\nalternatives: {', '.join(sorted(names))}")
        if wanted := only & names:  # the pool is what the others are compared with
            self.alternatives = [one for one in self.alternatives
                                 if one.name in wanted | {self.alternatives[0].name}]
        wanted = only & parts or parts
        alternatives.prepare(self.alternatives)
        traces = {}
        if "replay" in wanted:
            traces, self.notes = recorded(self.arguments.simulated, self.json_file.parent)
        traces |= {pathlib.Path(path).stem: pathlib.Path(path).resolve()
                   for path in self.arguments.trace}
        self.parts = [part for part in rows.parts(self.size, self.arguments.simulated, traces)
                      if part.name in wanted]
        self.cells = {(part.name, row.name, one.name): Cell()
                      for part in self.parts for row in part.rows for one in self.alternatives}

    def run(self) -> None:
        self.choose()
        for index, part in enumerate(self.parts):
            shares = [one.share for one in self.parts[index:]]
            left = self.end - time.monotonic()
            began = time.monotonic()
            self.measure(part, began + left * shares[0] / sum(shares))
            self.say(f"{part.name}: {time.monotonic() - began:.0f} s")
        self.stop_all()
        self.complete = all(cell.runs or cell.missing not in (None, NO_TIME)
                            for (_, _, name), cell in self.cells.items() if name not in self.gone())

    def gone(self) -> set[str]:
        return {one.name for one in self.alternatives if one.missing}

    def measure(self, part: Part, deadline: float) -> None:
        self.failures.clear()
        if part.anew:
            self.stop_all()
        here = [one for one in self.alternatives if not one.missing]
        repetitions = min(self.repetitions, part.repetitions or self.repetitions)
        for repetition in range(repetitions):
            began = time.monotonic()
            turned = here[repetition % len(here):] + here[:repetition % len(here)]
            if part.one_at_a_time:
                for one in turned:
                    for row in part.rows:
                        self.turn(part, row, one, deadline)
                    self.stop(one)
                    self.write()
            else:
                self.start(turned, part)
                for row in part.rows:
                    for one in turned:
                        self.turn(part, row, one, deadline)
                    self.write()
            if part.anew:
                self.stop_all()
            now = time.monotonic()
            takes = now - began if part.anew else 0  # to start them all again is most of it
            if now + takes > deadline and repetition + 1 < repetitions:
                self.say(f"{part.name}: {repetition + 1} of {repetitions} repetitions, "
                         "its time is over")
                break

    def turn(self, part: Part, row: Row, one: Alternative, deadline: float) -> None:
        """One figure of one alternative."""
        cell = self.cells[part.name, row.name, one.name]
        if one.missing or cell.missing:
            return
        left = min(deadline + 1, self.end) - time.monotonic()
        if left <= 0:
            if not cell.runs:
                cell.missing = NO_TIME
            return
        if self.failures.get(one.name, 0) >= 2:
            cell.missing = "it failed twice in this part"
            return
        try:
            process = self.process(one, part)
            introduction = process.introduction(START_S)
            for name in ("device", "cuda_driver", "cuda_runtime"):
                self.machine.setdefault(name, introduction[name])
            cell.runs.append(process.ask(row.request, REQUEST_S))
        except Missing as reason:
            one.missing = cell.missing = str(reason)
            self.say(f"{one.name} is missing: {reason}")
            self.stop(one)
        except (Failed, ValueError) as reason:
            cell.missing = str(reason)
            self.failures[one.name] = self.failures.get(one.name, 0) + 1
            self.say(f"{one.name} failed in {part.name}, {row.name}: {reason}")
            self.stop(one)

    def start(self, here: list[Alternative], part: Part) -> None:
        """Side by side, a few at once; who could not once more, alone."""
        starting: list[Alternative] = []
        for one in here:
            if len(starting) == STARTING_AT_ONCE:
                self.introduce(starting.pop(0), part)
            self.process(one, part)
            starting.append(one)
        for one in starting:
            self.introduce(one, part)

    def introduce(self, one: Alternative, part: Part) -> None:
        """Waits until it has started; once more, alone, where it could not."""
        try:
            self.process(one, part).introduction(START_S)
        except Missing as reason:
            self.say(f"{one.name}: {reason}; once more")
            self.stop(one)
            try:
                self.process(one, part).introduction(START_S)
            except Missing:
                pass  # the first turn says so

    def process(self, one: Alternative, part: Part) -> Process:
        if one.name not in self.processes:
            self.processes[one.name] = Process(one, self.arguments.simulated, part.reserve_bytes)
        return self.processes[one.name]

    def stop(self, one: Alternative) -> None:
        if process := self.processes.pop(one.name, None):
            if said := process.end():
                self.said[one.name] = said

    def stop_all(self) -> None:
        for process in self.processes.values():
            process.dismiss()
        for one in self.alternatives:
            self.stop(one)

    def say(self, words: str) -> None:
        print(f"[{time.monotonic() - self.begin:4.0f} s] {words}", file=sys.stderr, flush=True)

    # ---- The outcome

    def outcome(self) -> dict:
        base = self.alternatives[0].name
        found = []
        for part in self.parts:
            for row in part.rows:
                cells = {one.name: self.cells[part.name, row.name, one.name].result()
                         for one in self.alternatives}
                for one in self.alternatives:
                    if one.missing and "missing" in cells[one.name]:
                        cells[one.name]["missing"] = one.missing  # for all rows, the unasked too
                if ours := cells[base].get("ns"):
                    for cell in cells.values():
                        if "ns" in cell:
                            cell["ratio"] = cell["ns"] / ours
                found.append({"part": part.name, "row": row.name, "request": row.request,
                              "cells": cells})
        return {
            "compare_all": 1,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "commit": self.commit,
            "command": shlex.join(["compare_all.py", *sys.argv[1:]]),
            "machine": {**self.machine, "load_after": os.getloadavg()[0]},
            "repetitions": self.repetitions,
            "seconds": round(time.monotonic() - self.begin, 1),
            "complete": self.complete,
            "base": base,
            "parts": {part.name: part.what for part in self.parts},
            "alternatives": {one.name: {"what": one.what, "missing": one.missing}
                             for one in self.alternatives},
            "notes": self.notes,
            "said": self.said,
            "noise": report.noise(found, self.machine),
            "rows": found,
        }

    def write(self) -> str:
        """The table, which is in a file then, too."""
        outcome = self.outcome()
        table = "\n".join(report.table(outcome))
        for path, text in ((self.json_file, json.dumps(outcome, indent=1)),
                           (self.json_file.with_suffix(".md"), table)):
            new = path.with_name(path.name + ".new")
            new.write_text(text + "\n", encoding="utf-8")
            new.replace(path)
        return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="compare_all.py", usage=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--limit", type=float, default=450)
    parser.add_argument("--output", default=str(programs.BUILD / "compare_all"))
    parser.add_argument("--trace", action="append", default=[])
    parser.add_argument("--repetitions", type=int, default=0)
    parser.add_argument("--commit", default="")
    arguments = parser.parse_args()
    if not arguments.simulated and programs.gpu_count() == 0:
        programs.skip_all("no GPU")
    if not (programs.BUILD / "against").exists():
        sys.exit(f"compare_all: there is no {programs.BUILD}/against; build first, or set CMP_BUILD")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    comparison = Comparison(arguments)
    try:
        comparison.run()
    finally:
        comparison.stop_all()
        table = comparison.write()
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
