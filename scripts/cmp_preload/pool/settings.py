"""The pool's settings as options of the command line."""

from __future__ import annotations

import argparse

from cmp_preload.console.arguments import Parser
from cmp_preload.console.errors import Failure
from cmp_preload.pool.library import Library, Option


def add_settings(parser: Parser, library: Library, without: tuple[str, ...] = ()) -> list[Option]:
    """An option for every setting that the library has, but those `without`."""
    group = parser.add_argument_group("settings of the pool")
    options = [option for option in library.options() if option.name not in without]
    for option in options:
        text = f"{option.values}; {option.meaning.replace('`', '')} (default: {option.default})"
        group.add_argument(
            option.flag, dest=option.name, metavar="VALUE", help=text.replace("%", "%%")
        )
    return options


def settings_of(
    parsed: argparse.Namespace, options: list[Option], library: Library
) -> dict[str, str]:
    """The settings that were given, each one a value that the library takes."""
    settings = {}
    for option in options:
        value = getattr(parsed, option.name)
        if value is None:
            continue
        if not library.is_right(option.name, value):
            raise Failure(f"{option.flag} {value!r} is not understood; right: {option.values}", 2)
        settings[option.name] = value
    return settings
