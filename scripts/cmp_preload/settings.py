"""The pool's settings as options, and the environment of a program under the pool."""

from __future__ import annotations

import argparse
import os

from cmp_preload.console.arguments import Parser
from cmp_preload.console.errors import Failure
from cmp_preload.library import Library, Option

Environment = dict  # str to str


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


def settings_of(parsed: argparse.Namespace, options: list[Option], library: Library) -> Environment:
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


def own_environment() -> Environment:
    """What this process was started with. Python may have added to os.environ (in the C locale,
    LC_CTYPE); a program that is started from here must not see that."""
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return dict(os.environ)
    pairs = (entry.split(b"=", 1) for entry in entries if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, value in pairs}


def _is_pool(preload: str) -> bool:
    return os.path.basename(preload).startswith("libcmp_preload")


def without_pool(environment: Environment) -> Environment:
    """`environment` with nothing of the pool in it; other preloads stay."""
    result = {name: value for name, value in environment.items() if not name.startswith("CMP_")}
    others = [
        name
        for name in environment.get("LD_PRELOAD", "").replace(":", " ").split()
        if not _is_pool(name)
    ]
    result.pop("LD_PRELOAD", None)
    if others:
        result["LD_PRELOAD"] = ":".join(others)
    return result


def with_pool(environment: Environment, preload: str, settings: Environment) -> Environment:
    """`environment` with the pool before other preloads: one that stands before it and forwards
    dlsym to the C library would hide static runtimes from it."""
    others = without_pool(environment).get("LD_PRELOAD")
    return {**environment, **settings, "LD_PRELOAD": ":".join(filter(None, [preload, others]))}
