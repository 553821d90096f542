"""cmp-preload tune: records a program's allocations once, replays them under other settings of the
pool, and runs the program with the best ones."""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

from cmp_preload import replay, trace
from cmp_preload.trace import TraceError

ABOUT = """The settings that are tried change how much the pool keeps and where, never what the program sees.
CMP_ variables that are set stay as they are."""
CANDIDATES = {
    "CMP_TIER_STEPS": ("1", "2", "8"),
    "CMP_THREAD_CACHE_MAX_BLOCK": ("256K", "2097151"),
    "CMP_THREAD_CACHE_BYTES": ("4M", "64M", "256M"),
    "CMP_BATCH_BYTES": ("512K", "8M", "32M"),
    "CMP_SLACK": ("0%", "25%"),
    "CMP_MAX_BLOCK": ("16G",),
}
WORTH = 0.95  # a setting must bring calls below this part of the time without it


class Tuning:
    """Replays of one trace, each a few times: the median counts."""

    def __init__(self, path, times, library):
        self.path, self.times, self.library = path, times, library
        self.replays = 0

    def measure(self, settings) -> dict:
        """The time inside calls and the peak of what was reserved."""
        results = [
            replay.replay(self.path, "pool", "start", settings, self.library)
            for _ in range(self.times)
        ]
        self.replays += self.times
        return {
            "ns": statistics.median(r["allocations"]["ns"] + r["frees"]["ns"] for r in results),
            "reserved": max(r["reserved_peak_bytes"] for r in results),
            "failures": max(r["failures"] for r in results),
        }

    def search(self, fixed, candidates):
        """The settings that are worth it, found one variable after the other; what was measured
        without and with them."""
        best, without = dict(fixed), self.measure(fixed)
        reached = without
        for name, values in candidates.items():
            if name in fixed:
                continue
            tried = [(value, self.measure(best | {name: value})) for value in values]
            value, result = min(tried, key=lambda pair: pair[1]["ns"])
            if result["ns"] < WORTH * reached["ns"] and result["failures"] <= without["failures"]:
                best[name], reached = value, result
        return {name: value for name, value in best.items() if name not in fixed}, without, reached


def run(command, settings, library, **variables) -> float:
    """Runs the program under the pool, and returns its seconds."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("CMP_TRACE", "CMP_MODE")
    }
    preloaded = environment.get("LD_PRELOAD", "").split()
    environment |= {**settings, **variables, "LD_PRELOAD": " ".join([*preloaded, library])}
    begin = time.monotonic()
    code = subprocess.run(command, env=environment, check=False).returncode
    if code != 0:
        raise TraceError(f"the program ended with {code}")
    return time.monotonic() - begin


def largest_trace(folder) -> str:
    """Of several processes, that with the most calls."""
    paths = [os.path.join(folder, name) for name in os.listdir(folder)]
    if not paths:
        raise TraceError("no process of the program reached the pool")
    return max(paths, key=lambda path: len(trace.read(path).calls))


def mebibytes(count) -> str:
    return f"{count / 2**20:.0f} MiB"


def tune(command, times, library):
    """Records, searches, runs again; prints what was found."""
    library = library or replay.find("libcmp_preload.so", "CMP_PRELOAD_LIBRARY")
    fixed = replay.pool_settings()
    with tempfile.TemporaryDirectory(prefix="cmp-tune-") as folder:
        run(command, fixed, library, CMP_TRACE=os.path.join(folder, "trace.%p"))
        path = largest_trace(folder)
        tuning = Tuning(path, times, library)
        settings, without, reached = tuning.search(fixed, CANDIDATES)
        print(
            f"recorded {len(trace.read(path).calls):,} calls; {tuning.replays} replays", flush=True
        )
    if not settings:
        print("no setting that was tried makes the calls notably faster: keep what you have")
        return
    print("the environment to use:")
    for name, value in settings.items():
        print(f"  {name}={shlex.quote(value)}")
    print(
        f"predicted: in allocation calls {without['ns'] / 1e6:.2f} ms -> {reached['ns'] / 1e6:.2f} ms, "
        f"peak of the pool {mebibytes(without['reserved'])} -> {mebibytes(reached['reserved'])}"
    )
    seconds = [
        [run(command, chosen, library) for _ in range(times)]
        for chosen in (fixed, fixed | settings)
    ]
    before, after = map(statistics.median, seconds)
    print(f"measured: the program {before:.3f} s -> {after:.3f} s (median of {times})", flush=True)


def main(arguments=None, find_library=None) -> int:
    """The command. `find_library`: gives an object with the library's path."""
    parser = argparse.ArgumentParser(
        prog="cmp-preload tune",
        description=ABOUT,
        usage="cmp-preload tune [--times N] [--] PROGRAM [ARGUMENT...]",
    )
    parser.add_argument("--times", type=int, default=3, help="of every replay and run (3)")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command or options.times < 1:
        parser.error("which program?" if not command else "--times must be 1 or more")
    try:
        tune(command, options.times, find_library().path if find_library else None)
    except OSError as error:
        print(f"cmp-preload tune: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except TraceError as error:
        print(f"cmp-preload tune: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
