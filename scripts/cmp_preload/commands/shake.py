"""cmp-preload shake: does a program lean on the order that cudaFree keeps? Earlier work is held back
where nothing else puts it before later work."""

from __future__ import annotations

import argparse
import tempfile
from functools import partial

from cmp_preload.console import progress
from cmp_preload.console.arguments import (
    Parser,
    add_command,
    add_results,
    add_runs,
    command_of,
    number,
)
from cmp_preload.console.errors import Failure, Interrupted
from cmp_preload.diagnosis import driver
from cmp_preload.measuring import shaking
from cmp_preload.measuring.measurer import Measurer, Run
from cmp_preload.measuring.program import Program
from cmp_preload.measuring.results import Results
from cmp_preload.measuring.shaking import Found, Outcome, Starter
from cmp_preload.pool import preloading, program_file, settings
from cmp_preload.pool.library import Library
from cmp_preload.pool.symbols import Symbols
from cmp_preload.reporters import json, shaken

ABOUT = """Looks for races between streams, and between the GPU and the host, that only cudaFree hides: it
waits for all earlier work. Runs PROGRAM unshaken, records where a free had earlier work to wait for,
then holds that work back at a random sample of these places, so that later work, or the host, gets
ahead of it. Compares exit code and output. Where they differ, it narrows down which call, stream and
free it was. The findings go to stdout, progress to stderr.

Exit code 0: shaken runs agree; 1: a race was found; 3: no verdict."""

CODES = {Outcome.AGREE: 0, Outcome.RACE: 1, Outcome.NONE: 3}
UNSHAKEN = 4


def run(program: Program, settings: dict[str, str], what: str) -> Run:
    """Under the pool."""
    return program.run({"CMP_MODE": "pool", "CMP_SHAKE": "off", **settings}, what)


def run_unshaken(program: Program, times: int) -> list[Run]:
    """As the program is by itself, and, every other, with all that the pool changes without a hold."""
    return [
        program.run(None, "unshaken, without the pool")
        if i % 2 == 0
        else run(program, {"CMP_FREE_SYNC": "auto"}, "unshaken, under the pool")
        for i in range(times)
    ]


def work(
    found: Found, program: Program, folder: str, kinds: list[str], seeds: range, unshaken: int
) -> None:
    """Fills in `found`, which says what is known whenever this is interrupted."""
    results = program.results
    runs = run_unshaken(program, unshaken)
    found.unshaken = len(runs)
    found.unstable = results.unstable(runs)
    if found.unstable:
        return
    starter = Starter(partial(run, program), results.difference, folder)
    recording, recorded = starter.record()
    found.recording = results.difference(recording)
    found.reached = starter.reached
    found.tried = shaking.tried_of(kinds, recorded)
    for tried in found.tried:
        shaking.shake(tried, seeds, starter, narrow=True)
    if any(not race.sites for race in found.races):
        # Without a hold it differs, too: is it the mode, or the program by itself?
        more = run_unshaken(program, shaking.CONTROLS)
        found.unshaken += len(more)
        found.unstable = results.unstable(runs + more)


def parser_of(library: Library) -> Parser:
    parser = Parser("shake", ABOUT)
    add_runs(parser, f"shaken runs of each kind (default: {shaking.RUNS})", shaking.RUNS)
    parser.add_argument(
        "--kind",
        choices=shaking.KINDS,
        help="order: later work on another stream; host: what the host does after a free (default: "
        "both)",
    )
    parser.add_argument(
        "--unshaken",
        type=number("2 or more", lambda value: value >= 2, int),
        default=UNSHAKEN,
        metavar="RUNS",
        help="runs without holds, which must agree among themselves; every other is under the pool "
        f"(default: {UNSHAKEN})",
    )
    parser.add_argument(
        "--seed",
        type=number("1 to 1000000000", lambda value: 1 <= value <= 10**9, int),
        default=1,
        metavar="NUMBER",
        help="seed of the first shaken run; the next ones count up from it (default: 1)",
    )
    add_results(parser)
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    settings.add_settings(parser, library, ("CMP_MODE", "CMP_FREE_SYNC", "CMP_STATS"))
    add_command(parser)
    return parser


def main(arguments: list[str], find_library) -> int:
    library = find_library()
    parsed = parser_of(library).parse(arguments)
    try:
        return _main(parsed, library, find_library)
    except Failure as failure:
        if failure.code == 1:
            failure.code = CODES[Outcome.NONE]
        raise


def _main(parsed: argparse.Namespace, library: Library, find_library) -> int:
    command = command_of(parsed)
    chosen = settings.settings_of(parsed, library)
    environment = preloading.own_environment()
    program_file.require_preload(command[0], environment.get("PATH"), "shake")
    kinds = [parsed.kind] if parsed.kind else list(shaking.KINDS)
    found = Found()
    interrupted = 0  # the exit code then
    with tempfile.TemporaryDirectory(prefix="cmp-preload-") as folder:
        program = Program(
            Measurer(command, parsed.stdin, parsed.file, parsed.tee, find_library),
            Results(parsed.code, parsed.stderr, parsed.ignore, parsed.tolerance),
            library.preload_path(folder),
            chosen,
            total=parsed.unshaken + 1 + len(kinds) * parsed.runs,
            limit_s=parsed.limit,
        )
        seeds = range(parsed.seed, parsed.seed + parsed.runs)
        try:
            work(found, program, folder, kinds, seeds, parsed.unshaken)
        except Interrupted as signaled:
            if not any(tried.runs for tried in found.tried):
                raise  # nothing to tell yet
            interrupted = signaled.code
            found.interrupted = True
        finally:
            progress.clear()
    symbols = Symbols(command, environment)
    if parsed.json:
        print(json.shake(found, command, symbols))
    else:
        if driver.is_simulated(environment):
            print(driver.SIMULATED)
        print(shaken.text(found, command, symbols))
    return interrupted or CODES[found.outcome]
