"""Errors and warnings: one line each, on stderr."""

from __future__ import annotations

import sys


class Interrupted(KeyboardInterrupt):
    """A signal that asks the command to end; it ends with the code that a shell gives for it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number


class Failure(Exception):
    """Ends the command with one line on stderr."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def cannot_run(program: str, error: OSError) -> Failure:
    """With the code that a shell gives for it."""
    missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
    return Failure(f"cannot run {program}: {error.strerror}", 127 if missing else 126)


def warn(message: str) -> None:
    write_line(f"cmp-preload: {message}")


def write_line(text: str, end: str = "\n") -> None:
    """On stderr; lost where nobody can take it, as on a full disk."""
    try:
        print(text, end=end, file=sys.stderr, flush=True)
    except OSError:
        pass
