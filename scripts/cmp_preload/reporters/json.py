"""Reports for other programs."""

from __future__ import annotations

import json
import math
import shlex

from cmp_preload.measuring.series import Series
from cmp_preload.measuring.shaking import Found, Outcome, Race, Tried
from cmp_preload.measuring.verdict import Verdict
from cmp_preload.records import runs
from cmp_preload.records.collection import Collection
from cmp_preload.records.timeline import Timeline
from cmp_preload.records.traces import Traced
from cmp_preload.reporters import advice


def report(found: Collection) -> str:
    whole = {
        "cmp_report": 1,
        "headline": advice.headline(found),
        "findings": [one._asdict() for one in advice.findings(found)],
        **found.together,
        "processes": found.everyone,
    }
    if found.traces:
        whole["traces"] = [{**_trace(one), **_timeline(one.timeline)} for one in found.traces]
    return json.dumps(whole, indent=2)


def trial(command: list[str], all_series: list[Series], found: Verdict, simulated: bool) -> str:
    gain = found.gain
    whole = {
        "cmp_trial": 1,
        "command": command,
        "simulated": simulated,
        "verdict": found.lines,
        "same": found.same,
        "gain": gain
        and {
            "outcome": gain.outcome.name.lower(),
            "ratio": gain.ratio if math.isfinite(gain.ratio) else None,
        },
        "recommended": found.recommended,
        "variants": [_variant(series) for series in all_series],
    }
    return json.dumps(whole, indent=2)


def shake(found: Found, command: list[str], symbols) -> str:
    whole = {
        "cmp_shake": 1,
        "command": shlex.join(command),
        "verdict": found.outcome.value,
        "why": found.why_none() if found.outcome is Outcome.NONE else None,
        "interrupted": found.interrupted,
        "unshaken_runs": found.unshaken,
        "kinds": [_tried(one) for one in found.tried],
        "races": [_race(one, symbols) for one in found.races],
    }
    return json.dumps(whole, indent=2)


def _variant(series: Series) -> dict:
    counted = series.counters
    return {
        "name": series.name,
        "settings": series.settings,
        "seconds": series.seconds,
        "median_s": series.median,
        "different": series.different,
        "totals": counted["totals"],
        "process": counted["process"],
    }


def _tried(one: Tried) -> dict:
    return {
        "kind": one.kind,
        "sites": [site._asdict() for site in one.sites],
        "runs": [
            {
                "seed": run.seed,
                "different": run.different,
                "holds": run.holds,
                "effective": run.effective,
            }
            for run in one.runs
        ],
        "effective_sites": one.effective_sites,
        "cut_short": one.cut_short,
    }


def _race(one: Race, symbols) -> dict:
    return {
        "kind": one.kind,
        "seed": one.seed,
        "different": one.different,
        "complete": one.complete,
        "other_sites": one.others,
        "again": one.again,
        "tries": one.tries,
        "sites": [
            {
                **site._asdict(),
                "functions": {
                    name: [function for _, function in symbols.frames(getattr(site, f"{name}_where"))]
                    for name in ("earlier", "free", "later")
                },
            }
            for site in one.sites
        ],
    }


def _trace(one: Traced) -> dict:
    return {
        "file": one.file,
        "program": one.recorded.program,
        "pid": one.recorded.pid,
        "version": one.recorded.version,
        "command": one.recorded.command,
        "host": one.recorded.host,
        "rank": one.recorded.rank,
        "begin": runs.date_of(one.recorded.begin_unix),
        "ended": one.recorded.ended,
        "lost": one.recorded.lost,
        "settings": one.recorded.settings,
        "nanoseconds": one.recorded.nanoseconds,
    }


def _timeline(timeline: Timeline) -> dict:
    return {
        "calls": sum(timeline.calls),
        "threads": timeline.threads,
        "peak_bytes": timeline.peak,
        "peak_block_bytes": timeline.block_peak,
        "live_bytes_at_end": timeline.at_end,
        "outcomes": timeline.outcomes(),
        "page_locked_outcomes": timeline.page_locked_outcomes(),
        "tiers": timeline.used_tiers(),
        "step_ns": timeline.step_ns,
        "live_bytes": timeline.live,
        "live_block_bytes": timeline.blocks,
        "real_calls": timeline.real_calls,
    }
