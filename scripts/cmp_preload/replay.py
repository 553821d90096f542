"""cmp-preload replay: makes the allocations and frees of a trace again, with the real calls, under
the pool, and with cudaMallocAsync."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from cmp_preload.pool import preloading, settings
from cmp_preload.console import words
from cmp_preload.console.arguments import Parser
from cmp_preload.console.errors import Failure
from cmp_preload.pool.library import Library
from cmp_preload.records import rmm_csv, trace_file, traces
from cmp_preload.records.calls import Trace

ABOUT = """TRACE is what CMP_TRACE=FILE left (cmp-preload run --trace FILE), or a CSV of RMM's logging
resource. Threads and the order of the calls are kept; kernels, and the time between calls, are not
in a trace, so that its frees wait for nothing."""
BACKENDS = {
    "real": "cuMemAlloc and cuMemFree",
    "pool": "the same, under the pool",
    "async": "cuMemAllocAsync, memory kept",
}


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
            with open(report, encoding="utf-8") as file:
                counted = json.load(file)
            result["reserved_peak_bytes"] = counted["process"]["reserved_peak_bytes"]
            result["hit_rate"] = counted["totals"]["hit_rate"]
            result["settings"] = chosen or {}
        return result


def table(results: list[dict]) -> str:
    rows = [["", "wall time", "in calls", "allocation p50", "p99", "max", "free p50", "p99", "max"]]
    for result in results:
        calls = [result["allocations"], result["frees"]]
        times = [result["wall_ns"], sum(call["ns"] for call in calls)]
        times += [call[name] for call in calls for name in ("p50_ns", "p99_ns", "max_ns")]
        rows.append([BACKENDS[result["backend"]], *(words.seconds(time / 1e9) for time in times)])
    notes = [
        f"{BACKENDS[result['backend']]}: {words.count(result['failures'], 'call')} failed"
        for result in results
        if result["failures"]
    ]
    return "\n".join([words.table(rows), *notes])


def main(arguments: list[str], find_library) -> int:
    library = find_library()
    parser = Parser(
        prog="cmp-preload replay", description=ABOUT, usage="cmp-preload replay [OPTION...] TRACE"
    )
    parser.add_argument(
        "--backend",
        choices=[*BACKENDS, "all"],
        default="all",
        help=", ".join(f"{name}: {meaning}" for name, meaning in BACKENDS.items()),
    )
    parser.add_argument(
        "--order",
        choices=("start", "call", "thread"),
        default="start",
        help="start (default): calls start in the order in which they did; call: one after the "
        "other in that order; thread: each thread's own order, and no free before its allocation",
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON for each backend")
    parser.add_argument(
        "--csv", metavar="OUT", help="no replay: write it as a CSV of RMM's (-: to stdout)"
    )
    options = settings.add_settings(parser, library, ("CMP_MODE", "CMP_STATS", "CMP_TRACE"))
    parser.add_argument("file", nargs="?", metavar="TRACE")
    parsed = parser.parse(arguments)
    if parsed.file is None:
        raise Failure("which trace? Give the file", 2)
    recorded = traces.read(parsed.file)
    if parsed.csv is not None:
        write_csv(recorded, parsed.csv)
        return 0
    chosen = settings.settings_of(parsed, options, library)
    results = []
    for backend in BACKENDS if parsed.backend == "all" else [parsed.backend]:
        results.append(replay(parsed.file, library, backend, parsed.order, chosen))
        if parsed.json:
            print(json.dumps(results[-1]), flush=True)
    if not parsed.json:
        print(table(results))
    return 0


def write_csv(recorded: Trace, path: str) -> None:
    if path == "-":
        rmm_csv.write(recorded, sys.stdout)
        return
    try:
        with open(path, "w", newline="", encoding="utf-8") as file:
            rmm_csv.write(recorded, file)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
