"""Reports for a terminal."""

from __future__ import annotations

from cmp_preload.console import words
from cmp_preload.measuring.replays import BACKENDS
from cmp_preload.measuring.series import Series
from cmp_preload.records import counters, runs
from cmp_preload.records.collection import Collection
from cmp_preload.reporters import advice, process_tables, trace_tables
from cmp_preload.reporters.process_tables import MANY


def report(found: Collection, everything: bool) -> str:
    """A headline, findings with advice, then tables; what has no room is counted."""
    parts = [advice.headline(found), _findings(advice.findings(found), everything)]
    if found.processes:
        shown = found.processes if everything else process_tables.notable(found.processes)
        for rows, left in (
            (process_tables.process_rows(found.processes, found.together), (-1,)),
            (process_tables.memory_rows(found.processes, found.together), ()),
        ):
            names = tuple(range(process_tables.names_in(rows)))
            sums = process_tables.sums_in(found.processes)
            rows = _with(shown, found.processes, rows, sums)
            parts.append(words.table(rows, left=(*names, *(len(rows[0]) + i for i in left))))
        rows = process_tables.device_rows(found.processes)
        if len(rows) > 1:
            parts.append(words.table(rows if everything else _cut(rows, "rows")))
        if found.together["tiers"]:
            parts.append(_tiers(found.together["tiers"], everything))
        parts.append("\n".join(process_tables.notes(found.together)))
    if found.timeline is not None:
        whole = found.timeline
        rows = trace_tables.trace_rows(found.traces, whole)
        many = not everything and len(found.traces) > MANY
        last = [rows[-1]] if many else []
        names = tuple(range(rows[0].index("trace") + 1))
        rows = _cut(rows[:-1], "traces") + last if many else rows
        parts.append(words.table(rows, left=names))
        if any(whole.calls):
            parts.append(words.table(trace_tables.time_rows(whole), left=()))
            parts.append(_tiers(whole.used_tiers(), everything))
        if any(whole.calls) or whole.page_locked:
            parts.append(words.table(trace_tables.outcome_rows(whole)))
    facts = trace_tables.run_rows(found, everything)
    if facts:
        parts.append(words.table(facts, left=(0, 1)))
    return "\n\n".join(filter(None, parts))


def _findings(found: list[advice.Finding], everything: bool) -> str:
    lines = [f"- {one.what}" + (f"\n  -> {one.to_do}" if one.to_do else "") for one in found]
    return "\n".join(lines if everything else _cut_lines(lines))


def _with(
    shown: list[dict], processes: list[dict], rows: list[list[str]], sums: int
) -> list[list[str]]:
    """The rows of those processes that are shown, and of sums."""
    if len(shown) == len(processes):
        return rows
    of_each = rows[1 : len(rows) - sums]
    kept = [
        row
        for one, row in zip(runs.in_order(processes), of_each)
        if any(one is other for other in shown)
    ]
    before = process_tables.names_in(rows) - 1
    left_out = f"… {len(processes) - len(shown)} more (--all)"
    more = [*[""] * before, left_out, *[""] * (len(rows[0]) - before - 1)]
    return [rows[0], *kept, more, *rows[len(rows) - sums :]]


def _cut(rows: list[list[str]], what: str) -> list[list[str]]:
    if len(rows) <= MANY + 1:
        return rows
    left_out = [f"… {len(rows) - MANY - 1} more {what} (--all)", *[""] * (len(rows[0]) - 1)]
    return [*rows[: MANY + 1], left_out]


def _cut_lines(lines: list[str]) -> list[str]:
    if len(lines) <= MANY:
        return lines
    return [*lines[:MANY], f"… {len(lines) - MANY} more (--all)"]


def _tiers(tiers: list[dict], everything: bool) -> str:
    shown = tiers if everything else process_tables.notable_tiers(tiers)
    left_out = len(tiers) - len(shown)
    return words.table(process_tables.tier_rows(shown)) + (
        f"\n… {words.count(left_out, 'more size')}, with fewer allocations and bytes (--all)"
        if left_out
        else ""
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
