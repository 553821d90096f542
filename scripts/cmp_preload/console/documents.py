"""Where the documentation is, for messages that send a reader there."""

from __future__ import annotations

import os


def document(name: str) -> str:
    """The path of a page of scripts/docs: installed, they lie in this package; in a source tree,
    beside it."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for folder in (package, os.path.dirname(package)):
        path = os.path.join(folder, "docs", f"{name}.md")
        if os.path.isfile(path):
            return path
    return f"{name}.md of the documentation"
