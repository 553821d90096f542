"""The command line: its parser, and the options that several commands have."""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import shutil
import sys

from cmp_preload.console import words
from cmp_preload.console.errors import Failure


def own_command() -> str:
    """What to type into a shell for this program: its name if that finds it, else how it was called."""
    name = os.path.basename(sys.argv[0])
    found = shutil.which(name)
    same = found is not None and os.path.realpath(found) == os.path.realpath(sys.argv[0])
    return shlex.quote(name if same else sys.argv[0])


class Parser(argparse.ArgumentParser):
    """Of one command. Says in one line what is wrong, and what would be right. `operands`: what follows
    the options."""

    def __init__(self, command: str, about: str, operands: str = "[--] PROGRAM [ARGUMENT...]") -> None:
        super().__init__(
            prog=f"cmp-preload {command}",
            usage=f"cmp-preload {command} [OPTION...] {operands}",
            description=about,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def print_help(self, file=None) -> None:
        print(self.format_help(), end="", file=file)  # argparse would hide that it cannot

    def error(self, message: str):
        # Of "argument -n/--runs: ..." the name and what is wrong.
        message = re.sub(r"^argument (--?[\w-]+)(?:/[\w-]+)*: ", r"\1 ", message)
        message = message.replace(" expected one argument", " needs a value")
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
            meant = words.meant(name, right, 0.75)
            hint = f"did you mean {meant}?" if meant else f"these are: {' '.join(sorted(right))}"
            raise Failure(f"{name} is not an option of {self.prog}; {hint}", 2)
        return parsed


def add_operands(parser: Parser, name: str, count: str, metavar: str) -> None:
    """What follows the options; the usage says it."""
    parser.add_argument(name, nargs=count, metavar=metavar, help=argparse.SUPPRESS)


def add_command(parser: Parser) -> None:
    """The program to start: all that follows the options."""
    add_operands(parser, "command", argparse.REMAINDER, "[--] PROGRAM [ARGUMENT...]")


def command_of(parsed: argparse.Namespace) -> list[str]:
    command = parsed.command[1:] if parsed.command[:1] == ["--"] else parsed.command
    if not command:
        raise Failure("which program? Give it after the options, as in: -- ./app ARGUMENT...", 2)
    return command


def number(what: str, is_right, kind=float):
    """The type of an option that takes numbers; `what`: which, in words."""

    def convert(word: str):
        try:
            value = kind(word)
            if is_right(value) and value < math.inf:
                return value
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"{word!r} is not understood; right: a number, {what}")

    return convert


def add_runs(parser: Parser, about: str, default: int = 6) -> None:
    """How often the program runs, and what it reads and shows."""
    parser.add_argument(
        "-n",
        "--runs",
        type=number("1 or more", lambda value: value >= 1, int),
        default=default,
        metavar="RUNS",
        help=about,
    )
    parser.add_argument(
        "--stdin", type=_readable, metavar="FILE", help="what the program reads (default: nothing)"
    )
    parser.add_argument("--tee", action="store_true", help="show what the program writes, on stderr")


def add_results(parser: Parser) -> None:
    """What of a run is compared with what other runs left, and how exactly."""
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="REGEX",
        help="what in output lines is noise, not to be compared; may be given several times",
    )
    parser.add_argument(
        "--tolerance",
        type=number("0 or more", lambda value: value >= 0),
        default=0.0,
        metavar="RATIO",
        help="numbers in the output that differ by no more count as the same, as 1e-6 (default: 0)",
    )
    parser.add_argument(
        "--stderr", action="store_true", help="compare what the program writes on stderr, too"
    )
    parser.add_argument(
        "--file",
        action="append",
        default=[],
        metavar="FILE",
        help="a file that the program writes, to be compared, too; may be given several times",
    )
    parser.add_argument(
        "--code",
        type=int,
        default=0,
        metavar="N",
        help="the exit code of a run that went well (default: 0)",
    )
    parser.add_argument(
        "--limit",
        type=number("more than 0", lambda value: value > 0),
        metavar="SECONDS",
        help="a run that takes longer is ended (default: ten times the first run, and a minute)",
    )


def _readable(path: str) -> str:
    if not os.access(path, os.R_OK):
        raise Failure(f"--stdin: {path} cannot be read", 2)
    return path
