"""What traces say, as rows and lines; for text and page alike."""

from __future__ import annotations

from cmp_preload.console import words
from cmp_preload.records import runs
from cmp_preload.records.calls import OUTCOME_WORDS
from cmp_preload.records.collection import Collection
from cmp_preload.records.timeline import STEPS, Timeline
from cmp_preload.records.traces import Traced
from cmp_preload.reporters import process_tables

ROWS = 12  # of the table over time


def as_processes(traces: list[Traced]) -> list[dict]:
    """What traces know of their runs, as statistics have it."""
    return [
        {
            "pid": one.recorded.pid,
            "version": one.recorded.version or None,
            "reached": True,
            "totals": {"requests": sum(one.timeline.calls)},
            "run": {
                "command": one.recorded.command,
                "host": one.recorded.host,
                "rank": one.recorded.rank,
                "begin": runs.date_of(one.recorded.begin_unix),
                "settings": [f"{name}={value}" for name, value in one.recorded.settings.items()],
            },
        }
        for one in traces
    ]


def trace_rows(traces: list[Traced], whole: Timeline) -> list[list[str]]:
    """One row for each trace, by rank or busiest first; one for all."""
    processes = as_processes(traces)
    ranks, hosts = runs.ranked(processes), len(runs.hosts(processes)) > 1
    head = [*(["rank"] if ranks else []), *(["host"] if hosts else []), "trace"]
    rows = [[*head, "calls", "threads", "lasted", "peak asked for", "in blocks", "at the end"]]
    of = {id(process): one for process, one in zip(processes, traces)}
    for one in (of[id(process)] for process in runs.in_order(processes)):
        lasted = words.seconds(one.recorded.nanoseconds / 1e9)
        names = ["" if one.recorded.rank is None else str(one.recorded.rank)] if ranks else []
        names += [one.recorded.host or ""] if hosts else []
        rows.append([*names, one.name(), *_cells(one.timeline, lasted)])
    if len(traces) > 1:
        lasted = words.seconds(whole.step_ns * STEPS / 1e9)
        rows.append([*[""] * (len(head) - 1), f"all {len(traces)}", *_cells(whole, lasted, "up to ")])
    return rows


def _cells(timeline: Timeline, lasted: str, peak: str = "") -> list[str]:
    return [
        f"{sum(timeline.calls):,}",
        f"{timeline.threads:,}",
        lasted,
        peak + words.size(timeline.peak),
        peak + words.size(timeline.block_peak),
        words.size(timeline.at_end),
    ]


def time_rows(whole: Timeline) -> list[list[str]]:
    """Memory over time; of each row the most that was live."""
    rows = [["until", "asked for, at most", "in blocks", "calls", "of these real"]]
    width = STEPS // ROWS
    for begin in range(0, STEPS, width):
        part = slice(begin, begin + width)
        rows.append(
            [
                words.seconds(whole.step_ns * part.stop / 1e9),
                words.size(max(whole.live[part])),
                words.size(max(whole.blocks[part])),
                f"{sum(whole.calls[part]):,}",
                f"{sum(whole.real_calls[part]):,}",
            ]
        )
    return rows


def outcome_rows(whole: Timeline) -> list[list[str]]:
    rows = [["outcome", "calls", "time", "p50", "p99", "max"]]
    for of, outcomes in (
        ("", whole.outcomes()),
        ("page-locked memory ", whole.page_locked_outcomes()),
    ):
        for name, row in outcomes.items():
            times = [words.seconds(row[key] / 1e9) for key in ("ns", "p50_ns", "p99_ns", "max_ns")]
            timed = row["ns"] != 0  # in a CSV they are not
            calls = f"{row['calls']:,}"
            rows.append([of + OUTCOME_WORDS[name], calls, *(times if timed else [""] * 4)])
    return rows


def run_rows(found: Collection, everything: bool) -> list[list[str]]:
    """Which runs the files are of; traces of processes that left statistics, too, add nothing."""
    known = {(one["pid"], runs.of(one)["host"]) for one in found.everyone}
    others = [
        one
        for one in as_processes(found.traces)
        if (one["pid"], one["run"]["host"]) not in known
    ]
    return process_tables.run_rows([*found.everyone, *others], everything)
