"""The environment of a program without the pool and under it."""

from __future__ import annotations

import os

Environment = dict  # str to str


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


def literal(path: str) -> str:
    """`path` as CMP_STATS and CMP_TRACE take it, where % begins a placeholder."""
    return path.replace("%", "%%")


def file_of_each(folder: str, ending: str = "") -> str:
    """The same for a file of each process: host, rank and process in its name."""
    return literal(folder) + "/%h.%r.%p" + ending
