"""What the command line of cmp-preload takes, from its own parsers and the library's option table."""

from __future__ import annotations

import importlib
import re
from typing import NamedTuple

from cmp_preload import cli
from cmp_preload.pool.library import Library, Option

FILES = ("FILE", "TRACE", "PAGE", "OUT", "PATH")
FOLDER = "FOLDER"
# Settings whose value may be a file, and that of trial which is a list of another's values.
FILE_SETTINGS = ("CMP_STATS", "CMP_TRACE")
MODES, MODES_OF = "MODE,...", "CMP_FREE_SYNC"


class Flag(NamedTuple):
    names: tuple[str, ...]  # the long one last
    value: str  # what stands for it; empty: it takes none
    meaning: str
    words: tuple[str, ...]  # values that it takes, as far as they are words
    file: str  # "file" or "folder" where its value is one
    setting: str  # CMP_..., of an option of the library
    repeats: bool


class Command(NamedTuple):
    name: str
    arguments: str
    meaning: str
    about: str
    flags: tuple[Flag, ...]
    rest: str  # what follows the options: "program", "file" (one) or "files"

    @property
    def own(self) -> list[Flag]:
        return [flag for flag in self.flags if not flag.setting]


def words_of(option: Option, library: Library) -> tuple[str, ...]:
    """Those of its values that the library takes as they are written."""
    if option.default == "all":  # globs: every word is right
        return ()
    words = re.split(r"[,;]\s*", re.sub(r"\([^)]*\)", "", option.values))
    words = [word.strip() for word in words]
    return tuple(
        word
        for word in words
        if re.fullmatch(r"\w+", word) and word not in ("bytes",) and library.is_right(option.name, word)
    )


def flag_of(action, options: dict[str, Option], library: Library) -> Flag:
    metavar = action.metavar or ""
    choices = tuple(action.choices or ())
    takes = action.nargs != 0
    option = options.get(MODES_OF if metavar == MODES else action.dest)
    words = choices or (words_of(option, library) if option else ())
    file = "file" if metavar in FILES or action.dest in FILE_SETTINGS else ""
    return Flag(
        names=tuple(sorted(action.option_strings, key=len)),
        value=(metavar or "|".join(choices) or "VALUE") if takes else "",
        meaning=(action.help or "").replace("%%", "%"),
        words=words,
        file="folder" if metavar == FOLDER else file,
        setting=action.dest if action.dest in options else "",
        repeats=type(action).__name__ == "_AppendAction",
    )


def commands_of(library: Library) -> list[Command]:
    options = {option.name: option for option in library.options()}
    found = []
    for name, (arguments, meaning) in cli.COMMANDS.items():
        module = importlib.import_module(f"cmp_preload.commands.{name}")
        actions = module.parser_of(library)._actions
        rest = next(action for action in actions if not action.option_strings)
        found.append(
            Command(
                name,
                arguments,
                meaning,
                module.ABOUT,
                tuple(flag_of(one, options, library) for one in actions if one.option_strings),
                "program" if "PROGRAM" in rest.metavar else "files" if rest.nargs == "*" else "file",
            )
        )
    return found


def flags_with_value(commands: list[Command]) -> dict[str, Flag]:
    """Every name of an option that takes a value: the same in every command."""
    found: dict[str, Flag] = {}
    for command in commands:
        for flag in command.flags:
            for name in flag.names if flag.value else ():
                same = found.setdefault(name, flag)
                assert (same.words, same.file) == (flag.words, flag.file), f"{name} differs"
    return found
