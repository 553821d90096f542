"""How far a command of many runs has come, on stderr."""

from __future__ import annotations

import sys


def tell(line: str, last: bool) -> None:
    """On a terminal one line that changes; elsewhere a line for each run that has ended."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
    elif last:
        print(line, file=sys.stderr, flush=True)


def clear() -> None:
    """Before what is printed next."""
    tell("", last=False)
