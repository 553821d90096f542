"""What traces say, as rows and lines; for text and page alike."""

from __future__ import annotations

from cmp_preload.console import words
from cmp_preload.records import runs
from cmp_preload.records.calls import OUTCOME_WORDS
from cmp_preload.records.timeline import STEPS, Timeline
from cmp_preload.records.traces import Traced

ROWS = 12  # of the table over time


def trace_rows(traces: list[Traced], whole: Timeline) -> list[list[str]]:
    rows = [["trace", "calls", "threads", "lasted", "peak asked for", "in blocks", "at the end"]]
    for one in sorted(traces, key=lambda one: -sum(one.timeline.calls)):
        lasted = words.seconds(one.recorded.nanoseconds / 1e9)
        rows.append([one.name(), *_cells(one.timeline, lasted)])
    if len(traces) > 1:
        lasted = words.seconds(whole.step_ns * STEPS / 1e9)
        rows.append([f"all {len(traces)}", *_cells(whole, lasted)])
    return rows


def _cells(timeline: Timeline, lasted: str) -> list[str]:
    return [
        f"{sum(timeline.calls):,}",
        f"{timeline.threads:,}",
        lasted,
        words.size(timeline.peak),
        words.size(timeline.block_peak),
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
    for name, row in whole.outcomes().items():
        times = [words.seconds(row[key] / 1e9) for key in ("ns", "p50_ns", "p99_ns", "max_ns")]
        timed = row["ns"] != 0  # in a CSV they are not
        rows.append([OUTCOME_WORDS[name], f"{row['calls']:,}", *(times if timed else [""] * 4)])
    return rows


def notes(traces: list[Traced]) -> list[str]:
    """What else is worth a line: settings, once for the traces that share them."""
    found: dict[str, list[str]] = {}
    for one in traces:
        if one.recorded.settings:
            pairs = " ".join(f"{name}={value}" for name, value in one.recorded.settings.items())
            found.setdefault(pairs, []).append(one.name())
    return [
        f"settings of {names[0]}"
        + (f" and {words.count(len(names) - 1, 'other')}" if len(names) > 1 else "")
        + f": {pairs}"
        for pairs, names in found.items()
    ]


def run_rows(traces: list[Traced]) -> list[list[str]]:
    """When they began, and what recorded them, as far as a trace knows."""
    begins = sorted({runs.date_of(one.recorded.begin_unix) for one in traces} - {None})
    versions = sorted({one.recorded.version for one in traces} - {""})
    return [
        *([["pool", ", ".join(f"cmp {version}" for version in versions)]] if versions else []),
        *([["began", " to ".join(dict.fromkeys((begins[0], begins[-1])))]] if begins else []),
    ]
