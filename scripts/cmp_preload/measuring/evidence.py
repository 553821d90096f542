"""What shaken runs that agree are worth, in words."""

from __future__ import annotations

from cmp_preload.console import words
from cmp_preload.measuring.shaking import CUT_SHORT, Tried

AFTER = {  # of each kind: what is let go ahead of work that is held back
    "order": "later work ran first",
    "host": "the host went on first",
}
NO_PROOF = "That is evidence, no proof."


def of(tried: list[Tried]) -> str:
    """What was tried, and how much of it was effective."""
    cut_short = sum(run.cut_short for one in tried for run in one.runs)
    cut_short += any(one.recording_cut_short for one in tried)
    missing = f"; in {words.count(cut_short, 'run')} {CUT_SHORT}, and what it did last is not counted"
    return "; ".join(map(_of_kind, tried)) + (missing if cut_short else "")


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
