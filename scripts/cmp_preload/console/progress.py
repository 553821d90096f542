"""How far a command of many runs has come, on stderr."""

from __future__ import annotations

import os
import shutil
import sys

from cmp_preload.console import words
from cmp_preload.console.errors import write_line


def _takes_codes() -> bool:
    """A terminal that shows what control sequences ask for, of a user who wants them."""
    return (
        sys.stderr.isatty()
        and os.environ.get("TERM", "dumb") != "dumb"
        and not os.environ.get("NO_COLOR")
    )


def tell(line: str, last: bool) -> None:
    """On a terminal one line that changes; elsewhere a line for each run that has ended."""
    if _takes_codes():
        # A longer one would leave rows behind. All that it says is in the results, too.
        line = words.shorten(line, shutil.get_terminal_size().columns - 1)
        write_line(f"\r\033[K{line}", end="")
    elif last:
        write_line(line)


def clear() -> None:
    """Before what is printed next."""
    tell("", last=False)
