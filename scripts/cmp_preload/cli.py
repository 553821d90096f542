"""The command line: which command, and how each ends."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys

from cmp_preload.console import words
from cmp_preload.console.documents import document
from cmp_preload.console.errors import Failure, Interrupted, warn
from cmp_preload.pool.library import find

PROGRAM = "[OPTION...] [--] PROGRAM [ARGUMENT...]"
# Of each: its arguments, and what it does. First those that one needs first.
COMMANDS = {
    "doctor": (
        "[OPTION...] [--] [PROGRAM [ARGUMENT...]]",
        "does the pool work here, for this program?",
    ),
    "trial": (PROGRAM, "what does the program gain, and is it safe?"),
    "run": (PROGRAM, "start the program under the pool"),
    "report": ("[OPTION...] FILE...", "what statistics and traces say"),
    "tune": (PROGRAM, "which settings are best for the program?"),
    "shake": (PROGRAM, "races between streams that only cudaFree hides"),
    "replay": ("[OPTION...] TRACE", "a trace's allocations again, without the program"),
}
USAGE = f"""usage: cmp-preload [--library PATH] COMMAND ...

{words.table([[f"  {name}", *about] for name, about in COMMANDS.items()], left=(0, 1, 2))}

cmp-preload COMMAND --help: the options of a command. cmp-preload --version: which version this is.
--library PATH: another libcmp_preload.so than the one beside cmp-preload.
Pages about all of it: """


def command() -> int:
    """cmp-preload of the Python package, which holds the library, too."""
    return main(sys.argv[1:], os.path.dirname(os.path.abspath(__file__)))


def main(arguments: list[str], here: str) -> int:
    """`here`: the folder that cmp-preload was started in the name of."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a terminal of another character set
    try:
        if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            code = _command(arguments, here)
        except SystemExit as end:  # --help
            code = end.code
        sys.stdout.flush()
        return code
    except Failure as failure:
        warn(str(failure))
        return failure.code
    except BrokenPipeError:  # whoever read the output has enough
        _end_output()
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        _end_output()
        where = f" to {error.filename}" if error.filename else ""
        warn(f"cannot write{where}: {error.strerror}")
        return 1
    except Interrupted as signaled:
        warn("interrupted, before there was anything to tell")
        return signaled.code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _end_output() -> None:
    """What was printed and cannot be written is not tried again when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _command(arguments: list[str], here: str) -> int:
    path = None
    if arguments[:1] == ["--library"] and len(arguments) > 1:
        path, arguments = arguments[1], arguments[2:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE + document("README"), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(find(path, here).version())
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        meant = words.meant(name, COMMANDS)
        hint = f"did you mean {meant}?" if meant else f"these are: {', '.join(COMMANDS)}"
        raise Failure(f"{name} is not a command; {hint}", 2)
    # What the others need is not loaded.
    command = importlib.import_module(f"cmp_preload.commands.{name}")
    return command.main(arguments[1:], lambda: find(path, here))
