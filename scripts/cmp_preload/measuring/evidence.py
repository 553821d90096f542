"""What shaken runs that agree are worth, in words."""

from __future__ import annotations

from cmp_preload.console import words
from cmp_preload.measuring.shaking import Tried

AFTER = {  # of each kind: what is let go ahead of work that is held back
    "order": "later work ran first",
    "host": "the host went on first",
}
NO_PROOF = "That is evidence, no proof."


def of(tried: list[Tried]) -> str:
    """What was tried, and how much of it was effective."""
    return "; ".join(map(_of_kind, tried))


def _of_kind(tried: Tried) -> str:
    if not tried.sites:
        return f"{tried.kind}: no free had such work to wait for"
    recorded = words.count(len(tried.sites), "site")
    runs = words.count(len(tried.runs), "shaken run")
    if not tried.holds:
        return f"{tried.kind}: {runs}, nothing was held at any of {recorded}"
    return (
        f"{tried.kind}: {runs}, {words.count(tried.holds, 'hold')}, during {tried.effective:,} of "
        f"which {AFTER[tried.kind]}, at {tried.effective_sites:,} of {recorded}"
    )
