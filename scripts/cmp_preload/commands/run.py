"""cmp-preload run: becomes the program, with the pool preloaded. No process stays between the
caller and the program, so signals, the terminal and the exit code are as without."""

from __future__ import annotations

import os
import signal

from cmp_preload.console.arguments import Parser, add_command, command_of
from cmp_preload.console.errors import Failure, cannot_run, warn
from cmp_preload.pool import preloading, program_file, settings
from cmp_preload.pool.library import Library

ABOUT = """Starts PROGRAM with the pool under it. Children inherit the pool (shell scripts, mpirun,
torchrun); with --reports each process that uses CUDA leaves a report of its own, for
cmp-preload report."""


def reports_setting(folder: str) -> dict[str, str]:
    """CMP_STATS for one report per process in `folder`: host, rank and process in the name."""
    folder = os.path.abspath(folder)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "cannot be written to")
    except OSError as error:
        warn(f"no reports: {folder}: {error.strerror}")
        return {}
    return {"CMP_STATS": preloading.file_of_each(folder, ".json")}


def become(command: list[str], environment: dict[str, str]) -> None:
    """Replaces this process. Does not return."""
    # Python ignores these and an ignored signal stays ignored; programs start with the default.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        raise cannot_run(command[0], error) from None


def parser_of(library: Library) -> Parser:
    parser = Parser("run", ABOUT)
    parser.add_argument(
        "--reports",
        metavar="FOLDER",
        help="a JSON report of each process into FOLDER (made if it is not there)",
    )
    parser.add_argument(
        "--settings",
        metavar="FILE",
        help="lines CMP_NAME=VALUE, as trial --save writes them; options count for more",
    )
    settings.add_settings(parser, library)
    add_command(parser)
    return parser


def main(arguments: list[str], find_library) -> int:
    library = find_library()
    parsed = parser_of(library).parse(arguments)
    command = command_of(parsed)
    chosen = settings.settings_of(parsed, library)
    if parsed.settings is not None:
        chosen = {**settings.read_file(parsed.settings, library), **chosen}
    if parsed.reports is not None:
        if "CMP_STATS" in chosen:
            raise Failure("--reports and --stats both say where reports go; give one of them", 2)
        chosen.update(reports_setting(parsed.reports))
    environment = preloading.own_environment()
    reason = program_file.why_not_preloaded(command[0], environment.get("PATH"))
    if reason is not None:
        warn(f"{command[0]} runs without the pool: {reason}")
    become(command, preloading.with_pool(environment, library.preload_path(), chosen))
    return 1  # not reached
