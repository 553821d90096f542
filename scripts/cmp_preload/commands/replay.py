"""cmp-preload replay: makes the allocations and frees of a trace again, with the real calls, under
the pool, and with cudaMallocAsync."""

from __future__ import annotations

import json
import sys

from cmp_preload.console.arguments import Parser, add_operands
from cmp_preload.console.errors import Failure
from cmp_preload.diagnosis import driver
from cmp_preload.measuring.replays import BACKENDS, replay
from cmp_preload.pool import preloading, settings
from cmp_preload.pool.library import Library
from cmp_preload.records import rmm_csv, traces
from cmp_preload.records.calls import Trace
from cmp_preload.reporters import text

ABOUT = """Makes the allocations and frees of a trace again, without the program, and says how long they take.
TRACE is what CMP_TRACE=FILE left (cmp-preload run --trace FILE), or a CSV of RMM's logging
resource. Threads and the order of the calls are kept; kernels, and the time between calls, are not
in a trace, so that its frees wait for nothing."""


def parser_of(library: Library) -> Parser:
    parser = Parser("replay", ABOUT, "TRACE")
    parser.add_argument(
        "--backend",
        choices=[*BACKENDS, "all"],
        default="all",
        help="; ".join(f"{name}: {meaning}" for name, meaning in BACKENDS.items())
        + "; all (default): one after the other",
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
    settings.add_settings(parser, library, ("CMP_MODE", "CMP_STATS", "CMP_TRACE"))
    add_operands(parser, "file", "?", "TRACE")
    return parser


def main(arguments: list[str], find_library) -> int:
    library = find_library()
    parsed = parser_of(library).parse(arguments)
    if parsed.file is None:
        raise Failure("which trace? Give the file", 2)
    recorded = traces.read(parsed.file)
    if parsed.csv is not None:
        write_csv(recorded, parsed.csv)
        return 0
    chosen = settings.settings_of(parsed, library)
    results = []
    for backend in BACKENDS if parsed.backend == "all" else [parsed.backend]:
        results.append(replay(parsed.file, library, backend, parsed.order, chosen))
        if parsed.json:
            print(json.dumps(results[-1]), flush=True)
    if not parsed.json:
        print(text.replays(results))
        if driver.is_simulated(preloading.own_environment()):
            print(driver.SIMULATED)
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
