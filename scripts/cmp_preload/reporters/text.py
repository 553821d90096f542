"""Reports for a terminal."""

from __future__ import annotations

from cmp_preload.console import words
from cmp_preload.measuring.replays import BACKENDS
from cmp_preload.measuring.series import Series
from cmp_preload.records import counters
from cmp_preload.records.collection import Collection
from cmp_preload.reporters import process_tables, trace_tables
from cmp_preload.reporters.process_tables import MANY


def report(found: Collection, everything: bool) -> str:
    def busiest(rows: list[list[str]]) -> list[list[str]]:
        if everything or len(rows) <= MANY + 2:
            return rows
        left_out = [f"… {len(rows) - MANY - 2} more", *[""] * (len(rows[0]) - 1)]
        return rows[: MANY + 1] + [left_out, rows[-1]]

    parts = []
    if found.processes:
        rows = busiest(process_tables.process_rows(found.processes, found.together))
        parts.append(words.table(rows, left=(0, len(rows[0]) - 1)))
        rows = process_tables.device_rows(found.processes)
        if len(rows) > 1:
            parts.append(words.table(rows if everything else rows[: MANY + 1]))
        if found.together["tiers"]:
            parts.append(_tiers(found.together["tiers"], everything))
        parts.append("\n".join(process_tables.notes(found.together)))
    parts += process_tables.remarks(found)
    if found.timeline is not None:
        whole = found.timeline
        parts.append(words.table(busiest(trace_tables.trace_rows(found.traces, whole))))
        if any(whole.calls):
            parts.append(words.table(trace_tables.time_rows(whole), left=()))
            parts.append(_tiers(whole.used_tiers(), everything))
            parts.append(words.table(trace_tables.outcome_rows(whole)))
        parts.append("\n".join(trace_tables.notes(found.traces)[:MANY]))
    return "\n\n".join(filter(None, parts))


def _tiers(tiers: list[dict], everything: bool) -> str:
    shown = tiers
    if not everything and len(tiers) > MANY:
        busiest = sorted(tiers, key=lambda tier: -tier["requests"])[:MANY]
        shown = [tier for tier in tiers if tier in busiest]
    left_out = len(tiers) - len(shown)
    return words.table(process_tables.tier_rows(shown)) + (
        f"\n… {left_out} sizes with fewer allocations (--all)" if left_out else ""
    )


def trial(all_series: list[Series]) -> str:
    rows = [
        [
            "",
            "wall time",
            "spread",
            "in allocation",
            "real calls",
            "hit rate",
            "peak memory",
            "frees that waited",
        ]
    ]
    for series in all_series:
        name = f"{series.name} (check)" if series.is_check else series.name
        row = [name, words.seconds(series.median)]
        row.append(_spread(series) if len(series.runs) > 1 else "")
        counted = series.counters
        process = counted["process"]
        if process:
            row += [words.seconds(series.allocation_s()), f"{counters.real_calls(process):,}"]
        if process and series.name != "observed":
            row.append(words.floor_percent(counted["totals"]["hit_rate"]))
            row.append(words.size(process["reserved_peak_bytes"]))
            row.append(counters.waits_in_words(process))
        rows.append(row + [""] * (len(rows[0]) - len(row)))
    return words.table(rows, left=(0, 7))


def tuning(all_series: list[Series]) -> str:
    rows = [["measured", "wall time", "spread", "in allocation", "real calls", "peak memory"]]
    for series in all_series:
        process = series.counters["process"]
        row = [series.name, words.seconds(series.median), _spread(series)]
        row += [words.seconds(series.allocation_s()), f"{counters.real_calls(process):,}"]
        rows.append([*row, words.size(process["reserved_peak_bytes"])])
    return words.table(rows)


def _spread(series: Series) -> str:
    return f"{words.seconds(min(series.seconds))} to {words.seconds(max(series.seconds))}"


def replays(results: list[dict]) -> str:
    rows = [["", "wall time", "in calls", "allocation p50", "p99", "max", "free p50", "p99", "max"]]
    for result in results:
        calls = [result["allocations"], result["frees"]]
        times = [result["wall_ns"], sum(call["ns"] for call in calls)]
        times += [call[name] for call in calls for name in ("p50_ns", "p99_ns", "max_ns")]
        rows.append([BACKENDS[result["backend"]], *(words.seconds(time / 1e9) for time in times)])
    notes = [
        f"{BACKENDS[result['backend']]}: {words.count(result['failures'], 'call')} failed"
        for result in results
        if result["failures"]
    ]
    return "\n".join([words.table(rows), *notes])
