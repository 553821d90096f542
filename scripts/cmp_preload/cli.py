"""Which command, and what all of them share: errors of one line, warnings of one line."""

from __future__ import annotations

import argparse
import difflib
import os
import sys

USAGE = """usage: cmp-preload [--library PATH] COMMAND ...

  run     [OPTION...] [--] PROGRAM [ARGUMENT...]   start a program under the pool
  trial   [OPTION...] [--] PROGRAM [ARGUMENT...]   without and with it: what is gained, is it safe
  doctor  [OPTION...] [PROGRAM]                    does it work on this machine, for this program
  report  [OPTION...] FILE...                      what statistics and traces say
  replay  [OPTION...] TRACE                        the same allocations, for real and under the pool
  tune    [OPTION...] [--] PROGRAM [ARGUMENT...]   which settings are best for it

cmp-preload COMMAND --help has the options of one command.
"""


class Failure(Exception):
    """Ends the command with one line on stderr."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def warn(message: str) -> None:
    print(f"cmp-preload: {message}", file=sys.stderr, flush=True)


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, and what would be right."""

    def __init__(self, **more) -> None:
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **more
        )

    def error(self, message: str):
        raise Failure(f"{message} ({self.prog} --help has all options)", 2)

    def parse(self, arguments: list[str]) -> argparse.Namespace:
        """As parse_args, with a suggestion for an option that is not one."""
        parsed, unknown = self.parse_known_args(arguments)
        if unknown:
            right = [
                flag
                for action in self._actions
                for flag in action.option_strings
                if flag.startswith("--")
            ]
            name = unknown[0].split("=", 1)[0]
            close = difflib.get_close_matches(name, right, 1, 0.75)
            raise Failure(
                f"{name} is not an option of {self.prog}"
                + (
                    f"; did you mean {close[0]}?"
                    if close
                    else f"; these are: {' '.join(sorted(right))}"
                ),
                2,
            )
        return parsed


def add_command(parser: Parser) -> None:
    """The program to start: all that follows the options."""
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="[--] PROGRAM [ARGUMENT...]")


def command_of(parsed: argparse.Namespace) -> list[str]:
    command = parsed.command[1:] if parsed.command[:1] == ["--"] else parsed.command
    if not command:
        raise Failure("which program? Give it after the options, as in: -- ./app ARGUMENT...", 2)
    return command


def main(arguments: list[str], here: str) -> int:
    """`here`: the folder that cmp-preload was started in the name of."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a terminal of another character set
    try:
        code = _command(arguments, here)
        sys.stdout.flush()
        return code
    except Failure as failure:
        warn(str(failure))
        return failure.code
    except BrokenPipeError:  # whoever read the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _command(arguments: list[str], here: str) -> int:
    path = None
    if arguments[:1] == ["--library"] and len(arguments) > 1:
        path, arguments = arguments[1], arguments[2:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2

    def find_library():
        from cmp_preload.library import find

        return find(path, here)

    name = arguments[0]
    # Only the command's own modules are loaded.
    if name == "run":
        from cmp_preload.run import main as command
    elif name == "trial":
        from cmp_preload.trial import main as command
    elif name == "doctor":
        from cmp_preload.doctor import main as command
    elif name == "report":
        from cmp_preload.report import main as command
    elif name == "replay":
        from cmp_preload.replay import main as command
    elif name == "tune":
        from cmp_preload.tune import main as command
    elif name == "--version":
        print(find_library().version())
        return 0
    else:
        commands = "run, trial, doctor, report, replay, tune"
        raise Failure(f"{name} is not a command; these are: {commands}", 2)
    return command(arguments[1:], find_library)
