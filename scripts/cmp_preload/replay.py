"""cmp-preload replay: plays the allocations and frees of a trace again, against the real calls, the
pool and cudaMallocAsync."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from cmp_preload import trace
from cmp_preload.trace import TraceError

ABOUT = """FILE is a trace (CMP_TRACE=FILE), or a CSV of RMM's logging resource. Threads and the order of the
calls are kept; what kernels did meanwhile, and the time between calls, is not in a trace. CMP_
variables are the pool's settings."""
BACKENDS = {"real": "cuMemAlloc and cuMemFree", "pool": "the same, under the pool",
            "async": "cuMemAllocAsync, memory kept"}


def _folders():
    """Where the project's files may lie: the build folder of a source tree, an installation."""
    modules = pathlib.Path(__file__).resolve().parent
    yield modules.parents[1] / "build"
    for name in ("bin", "lib", "lib64"):
        yield modules.parents[2] / name
    yield from modules.parents[2].glob("lib/*-linux-*")


def find(name, variable) -> str:
    """One of the project's files, or what `variable` says."""
    places = [os.environ.get(variable), *(folder / name for folder in _folders()),
              shutil.which(name)]
    for place in places:
        if place and os.path.isfile(place):
            return str(place)
    raise TraceError(f"{name} was not found: set {variable} to its path")


def replay(path, backend="pool", order="start", settings=None, library=None) -> dict:
    """Plays the trace (or CSV) in `path` again, in a process of its own, and says what it measured.
    `settings`: the pool's. `library`: libcmp_preload.so, looked for if it is None."""
    with tempfile.TemporaryDirectory(prefix="cmp-replay-") as folder:
        with open(path, "rb") as file:
            is_trace = file.read(len(trace.MAGIC)) == trace.MAGIC
        if not is_trace:
            converted = os.path.join(folder, "trace")
            trace.write(trace.read_csv(path), converted)
            path = converted
        report = os.path.join(folder, "stats.json")
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith("CMP_")}
        preloaded = [name for name in environment.pop("LD_PRELOAD", "").replace(":", " ").split()
                     if "libcmp_preload" not in name]
        if backend == "pool":
            environment.update(settings or {}, CMP_STATS=report)
            preloaded.append(library or find("libcmp_preload.so", "CMP_PRELOAD_LIBRARY"))
        if preloaded:
            environment["LD_PRELOAD"] = " ".join(preloaded)
        command = [find("cmp-replay", "CMP_REPLAY"), "--order", order,
                   "--backend", "async" if backend == "async" else "sync", os.fspath(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise TraceError(done.stderr.strip() or f"cmp-replay ended with {done.returncode}")
        result = json.loads(done.stdout)
        if bool(result["preload"]) != (backend == "pool"):
            raise TraceError(f"the replay of {backend} has the wrong libraries: {done.stderr}")
        result["backend"] = backend
        if backend == "pool":
            with open(report, encoding="utf-8") as file:
                statistics = json.load(file)
            result["reserved_peak_bytes"] = statistics["process"]["reserved_peak_bytes"]
            result["hit_rate"] = statistics["totals"]["hit_rate"]
            result["settings"] = settings or {}
    return result


def table(results) -> str:
    """Results of several replays of one trace, for people."""
    rows = [["", "wall", "in calls", "allocation p50", "p99", "max", "free p50", "p99", "max",
             "failures"]]
    for result in results:
        calls = [result["allocations"], result["frees"]]
        times = [result["wall_ns"], sum(call["ns"] for call in calls)]
        row = [BACKENDS[result["backend"]], *(f"{time / 1e6:.2f} ms" for time in times)]
        for call in calls:
            row += [f"{call[name] / 1e3:.2f} us" for name in ("p50_ns", "p99_ns", "max_ns")]
        rows.append([*row, str(result["failures"])])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join([row[0].ljust(widths[0])] +
                               [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])])
                     for row in rows)


def pool_settings() -> dict:
    """The CMP_ variables of this process that are settings of the pool."""
    return {name: value for name, value in os.environ.items() if name.startswith("CMP_") and
            name not in ("CMP_TRACE", "CMP_STATS", "CMP_REPLAY", "CMP_PRELOAD_LIBRARY", "CMP_MODE")}


def main(arguments=None, find_library=None) -> int:
    """The command. `find_library`: gives an object with the library's path."""
    parser = argparse.ArgumentParser(prog="cmp-preload replay", description=ABOUT)
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--backend", choices=[*BACKENDS, "all"], default="all")
    parser.add_argument("--order", choices=("start", "call", "thread"), default="start",
                        help="start (default): calls start in the order in which they happened; "
                             "call: one after the other in that order; thread: each thread's own order, and no free before its allocation")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each backend")
    parser.add_argument("--summary", action="store_true",
                        help="no replay: what is in the trace, as JSON")
    parser.add_argument("--csv", metavar="OUT", help="no replay: write it as RMM's CSV (-: stdout)")
    options = parser.parse_args(arguments)
    try:
        if options.summary:
            print(json.dumps(trace.read(options.file).summary(), indent=2))
        elif options.csv == "-":
            trace.write_csv(trace.read(options.file), sys.stdout)
        elif options.csv:
            read = trace.read(options.file)
            with open(options.csv, "w", newline="", encoding="utf-8") as file:
                trace.write_csv(read, file)
        else:
            library = find_library().path if find_library else None
            backends = BACKENDS if options.backend == "all" else [options.backend]
            results = []
            for backend in backends:
                results.append(replay(options.file, backend, options.order, pool_settings(),
                                      library))
                if options.json:
                    print(json.dumps(results[-1]), flush=True)
            if not options.json:
                print(table(results))
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"cmp-preload replay: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except TraceError as error:
        print(f"cmp-preload replay: {options.file}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
