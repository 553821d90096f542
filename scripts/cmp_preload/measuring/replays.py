"""Replays of a trace: its allocations and frees alone, in a process of their own (scripts/replay.cpp)."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile

from cmp_preload.console import progress
from cmp_preload.console.errors import Failure
from cmp_preload.pool import preloading
from cmp_preload.pool.library import Library
from cmp_preload.records import statistics, trace_file, traces

BACKENDS = {
    "real": "cuMemAlloc and cuMemFree",
    "pool": "the same, under the pool",
    "async": "cuMemAllocAsync, memory kept",
}
TURNS = 3  # replays of what is compared
WORTH = 0.95  # a setting must bring the calls below this part of their time without it


def replay(
    path: str,
    library: Library,
    backend: str = "pool",
    order: str = "start",
    chosen: dict[str, str] | None = None,
) -> dict:
    """Plays a trace (or CSV) in a process of its own, and says what it measured. `chosen`: settings
    of the pool."""
    with tempfile.TemporaryDirectory(prefix="cmp-preload-") as folder:
        if not trace_file.is_trace(path):
            converted = os.path.join(folder, "trace")
            trace_file.write(traces.read(path), converted)
            path = converted
        report = os.path.join(folder, "statistics.json")
        environment = preloading.without_pool(dict(os.environ))
        if backend == "pool":
            added = {**(chosen or {}), "CMP_MODE": "pool", "CMP_STATS": preloading.literal(report)}
            environment = preloading.with_pool(environment, library.preload_path(folder), added)
        call = "async" if backend == "async" else "sync"
        done = subprocess.run(
            [library.replay_program(), "--order", order, "--backend", call, path],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()
            raise Failure(said[-1] if said else f"cmp-replay ended with {done.returncode}")
        result = {**json.loads(done.stdout), "backend": backend}
        if bool(result["preload"]) != (backend == "pool"):
            raise Failure(f"the replay of {backend} ran with other libraries: {done.stderr}")
        if backend == "pool":
            counted = statistics.read(report, lambda: library)
            result["reserved_peak_bytes"] = counted["process"]["reserved_peak_bytes"]
            result["hit_rate"] = counted["totals"]["hit_rate"]
            result["settings"] = chosen or {}
        return result


class Replays:
    """Replays of one trace. The shortest counts: what else happens only makes them longer."""

    def __init__(self, path: str, library: Library) -> None:
        self._path = path
        self._library = library
        self.count = 0
        self.rejected: list[tuple[str, str, float]] = []  # setting, value, its time by that without

    def measure(self, chosen: dict[str, str]) -> dict:
        """The time inside calls, and what the pool held at most."""
        self.count += 1
        progress.tell(f"replay {self.count} …", last=False)
        result = replay(self._path, self._library, "pool", "start", chosen)
        return {
            "ns": result["allocations"]["ns"] + result["frees"]["ns"],
            "reserved": result["reserved_peak_bytes"],
            "failures": result["failures"],
        }

    def search(self, fixed: dict[str, str], candidates: dict) -> tuple[dict, dict, dict]:
        """The settings that are worth it, found one after the other; what was measured without
        and with them."""
        best = dict(fixed)
        without = reached = self._shortest([fixed] * TURNS)[0]
        for name, values in candidates.items():
            if name in fixed:
                continue
            tried = [(value, self.measure({**best, name: value})) for value in values]
            value, result = min(tried, key=lambda pair: pair[1]["ns"])
            self.rejected += [(name, v, r["ns"] / reached["ns"]) for v, r in tried if v != value]
            if result["ns"] >= WORTH * reached["ns"]:
                self.rejected.append((name, value, result["ns"] / reached["ns"]))
                continue
            # The best of several is often the luckiest: once more, in turn with what it is to beat.
            other = {**best, name: value}
            usual, result = self._shortest([best, other] * TURNS, 2)
            if result["ns"] < WORTH * usual["ns"] and result["failures"] <= usual["failures"]:
                best, reached = other, result
            else:
                self.rejected.append((name, value, result["ns"] / usual["ns"]))
        return {name: best[name] for name in best if name not in fixed}, without, reached

    def _shortest(self, turns: list[dict[str, str]], ways: int = 1) -> list[dict]:
        results = [self.measure(chosen) for chosen in turns]
        return [min(results[way::ways], key=lambda one: one["ns"]) for way in range(ways)]
