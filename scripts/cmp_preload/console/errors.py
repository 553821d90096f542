"""Errors and warnings: one line each, on stderr."""

from __future__ import annotations

import sys


class Failure(Exception):
    """Ends the command with one line on stderr."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def warn(message: str) -> None:
    print(f"cmp-preload: {message}", file=sys.stderr, flush=True)
