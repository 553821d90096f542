"""The pool's settings: as options of the command line, and in a file."""

from __future__ import annotations

import argparse
import os

from cmp_preload.console import words
from cmp_preload.console.arguments import Parser
from cmp_preload.console.errors import Failure
from cmp_preload.pool.library import Library

SHAKE = ("CMP_SHAKE", "CMP_SHAKE_SITES", "CMP_SHAKE_REPORT")  # cmp-preload shake sets them


def add_settings(parser: Parser, library: Library, without: tuple[str, ...] = ()) -> None:
    """An option for every setting that the library has, but those `without` and SHAKE."""
    group = parser.add_argument_group("settings of the pool")
    for option in library.options():
        if option.name in (*without, *SHAKE):
            continue
        text = f"{option.values}; {option.meaning.replace('`', '')} (default: {option.default})"
        group.add_argument(
            option.flag, dest=option.name, metavar="VALUE", help=text.replace("%", "%%")
        )


def read_file(path: str, library: Library) -> dict[str, str]:
    """A settings file: lines NAME=VALUE, empty ones, and comments that begin with #."""
    rights = {option.name: option for option in library.options()}
    found: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")
    except UnicodeDecodeError:
        raise Failure(f"{path}: not a settings file (lines CMP_NAME=VALUE)", 2) from None
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}", 2) from None
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue

        def wrong(what: str) -> Failure:
            return Failure(f"{path}:{number}: {what}", 2)

        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            raise wrong(f"{words.shorten(line, 40)!r} is not of the form CMP_NAME=VALUE")
        if name not in rights:
            meant = words.meant(name, rights)
            hint = f"; did you mean {meant}?" if meant else ""
            raise wrong(f"{words.shorten(name, 40)!r} is not a setting of the pool{hint}")
        if name in found:
            raise wrong(f"{name} is set for the second time")
        if not library.is_right(name, value):
            said = words.shorten(value, 40)
            raise wrong(f"{name}: {said!r} is not understood; right: {rights[name].values}")
        found[name] = value
    return found


def require_writable(path: str) -> None:
    """Before runs of which nothing could be kept. What is there stays as it is."""
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise Failure(f"{path} cannot be written", 2)


def write_file(path: str, settings: dict[str, str], comments: list[str]) -> None:
    """As read_file reads it."""
    lines = [f"# {line}" for comment in comments for line in comment.splitlines()]
    lines += [f"{name}={value}" for name, value in settings.items()]
    try:
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write("\n".join(lines) + "\n")
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None


def settings_of(parsed: argparse.Namespace, library: Library) -> dict[str, str]:
    """The settings that were given, each one a value that the library takes."""
    settings = {}
    for option in library.options():
        value = getattr(parsed, option.name, None)
        if value is None:
            continue
        if not library.is_right(option.name, value):
            raise Failure(f"{option.flag} {value!r} is not understood; right: {option.values}", 2)
        settings[option.name] = value
    return settings
