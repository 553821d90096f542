"""cmp-preload report: what statistics and traces of one or many processes say."""

from __future__ import annotations

import json
import os

from cmp_preload import statistics, trace, traces
from cmp_preload.console import words
from cmp_preload.console.arguments import Parser
from cmp_preload.console.errors import Failure

ABOUT = """FILE is what CMP_STATS or cmp-preload run --reports left: the JSON of a process that
ended, or FILE.live of one that runs or was killed; or a trace (CMP_TRACE, cmp-preload run --trace),
or a CSV of RMM's logging resource. A folder stands for all statistics and traces in it."""

MANY = 20  # rows of a table, unless all are asked for


class Found:
    """What is in the files."""

    def __init__(self, paths: list[str], find_library) -> None:
        files = [file for path in paths for file in files_of(path)]
        recorded = [file for file in files if is_recorded(file)]
        self.everyone = [
            {"file": file, **statistics.read(file, find_library)}
            for file in files
            if file not in recorded
        ]
        self.processes = [one for one in self.everyone if one["reached"]]
        self.unreached = [one for one in self.everyone if not one["reached"]]
        self.together = statistics.add_up(self.everyone)
        self.traces = traces.read_all(recorded, find_library)
        self.timeline = traces.together(self.traces) if self.traces else None

    def as_json(self) -> dict:
        recorded = {"traces": [one.summary() for one in self.traces]} if self.traces else {}
        return {"cmp_report": 1, **self.together, "processes": self.everyone, **recorded}


def files_of(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    try:
        known = statistics.files_in(path)
        others = (os.path.join(path, name) for name in sorted(os.listdir(path)))
        found = known + [file for file in others if file not in known and is_recorded(file)]
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    if not found:
        raise Failure(f"{path}: no statistics files (*.json, *.live) and no traces are in it")
    return found


def is_recorded(path: str) -> bool:
    """A trace, or a CSV."""
    try:
        return os.path.isfile(path) and (path.endswith(".csv") or trace.is_trace(path))
    except OSError:
        return False  # reading it will tell


def process_rows(processes: list[dict], together: dict) -> list[list[str]]:
    """The table of processes: one row for each, busiest first, and one for all."""
    rows = [
        [
            "process",
            "allocations",
            "hit rate",
            "real calls",
            "in allocation",
            "peak memory",
            "frees that waited",
        ]
    ]
    for one in sorted(processes, key=lambda p: -p["totals"]["requests"]):
        rows.append([name_of(one), *_cells(one)])
    if len(processes) > 1:
        rows.append([f"all {len(processes)}", *_cells(together)])
    return rows


def name_of(one: dict) -> str:
    notes = [
        note
        for note, holds in (
            ("observed", one.get("mode") == "observe"),
            ("not ended", one.get("live")),
        )
        if holds
    ]
    return f"{one['program']} {one['pid']}" + (f" ({', '.join(notes)})" if notes else "")


def _cells(one: dict) -> list[str]:
    totals, process = one["totals"], one["process"]
    return [
        f"{totals['requests']:,}",
        words.floor_percent(totals["hit_rate"]),
        f"{process['real_malloc_calls'] + process['real_free_calls']:,}",
        words.seconds(statistics.allocation_ns(process) / 1e9),
        words.size(process["reserved_peak_bytes"]),
        statistics.waits_in_words(process),
    ]


def device_rows(processes: list[dict]) -> list[list[str]]:
    """What each device's contexts held at the end, of the processes that used several."""
    rows = [["process", "device", "live", "idle", "held in all", "live peak", "limit"]]
    for one in processes:
        devices = one.get("devices", [])  # not in what a process leaves that was killed
        for device in devices if len(devices) > 1 else []:
            rows.append(
                [
                    name_of(one),
                    str(device["device"]),
                    words.size(device["live_block_bytes"]),
                    words.size(device["ready_bytes"] + device["retired_bytes"]),
                    words.size(device["reserved_bytes"]),
                    words.size(device["live_peak_bytes"]),
                    words.size(device["bound_bytes"]),
                ]
            )
    return rows


def tier_rows(tiers: list[dict]) -> list[list[str]]:
    rows = [
        [
            "block",
            "allocations",
            "thread cache",
            "global pool",
            "refills",
            "real calls",
            "rounded up by",
        ]
    ]
    for tier in tiers:
        asked = tier["requested_bytes"]
        rounded = (tier["block_bytes"] - asked) / asked if asked else 0
        rows.append(
            [
                words.size(tier["bytes"]),
                *(
                    f"{tier[name]:,}"
                    for name in (
                        "requests",
                        "thread_cache_hits",
                        "global_pool_hits",
                        "refills",
                        "real",
                    )
                ),
                f"{100 * rounded:.0f}%",
            ]
        )
    return rows


def notes(together: dict) -> list[str]:
    """What else is worth a line."""
    totals, process = together["totals"], together["process"]
    found = (
        [f"{words.count(totals['real_calls_avoided'], 'real call')} avoided"]
        if totals.get("real_calls_avoided")
        else []
    )
    if process.get("skipped_waits"):
        found.append(
            f"{words.count(process['skipped_waits'], 'free')} did not wait where the real one would "
            f"have, for {words.seconds(process['skipped_wait_min_ns'] / 1e9)} to "
            f"{words.seconds(process['skipped_wait_max_ns'] / 1e9)}"
        )
    if statistics.limit_in_words(process):
        found.append(statistics.limit_in_words(process))
    for name, meaning in (
        ("failed_allocations", "allocation failed|allocations failed"),
        (
            "out_of_memory_rescues",
            "allocation needed idle memory to be released"
            "|allocations needed idle memory to be released",
        ),
        ("double_frees", "double free|double frees"),
        (
            "capture_real_calls",
            "call was real because of a capture" "|calls were real because of captures",
        ),
        ("contexts_dropped", "context was reset or destroyed" "|contexts were reset or destroyed"),
    ):
        if process.get(name):
            singular, plural = meaning.split("|")
            found.append(f"{process[name]:,} {singular if process[name] == 1 else plural}")
    return found


def tiers_as_text(tiers: list[dict], everything: bool) -> str:
    shown = tiers
    if not everything and len(tiers) > MANY:
        busiest = sorted(tiers, key=lambda tier: -tier["requests"])[:MANY]
        shown = [tier for tier in tiers if tier in busiest]
    left_out = len(tiers) - len(shown)
    return words.table(tier_rows(shown)) + (
        f"\n… {left_out} sizes with fewer allocations (--all)" if left_out else ""
    )


def as_text(found: Found, everything: bool) -> str:
    def busiest(rows: list[list[str]]) -> list[list[str]]:
        if everything or len(rows) <= MANY + 2:
            return rows
        left_out = [f"… {len(rows) - MANY - 2} more", *[""] * (len(rows[0]) - 1)]
        return rows[: MANY + 1] + [left_out, rows[-1]]

    parts = []
    if found.processes:
        rows = busiest(process_rows(found.processes, found.together))
        parts.append(words.table(rows, left=(0, len(rows[0]) - 1)))
        rows = device_rows(found.processes)
        if len(rows) > 1:
            parts.append(words.table(rows if everything else rows[: MANY + 1]))
        if found.together["tiers"]:
            parts.append(tiers_as_text(found.together["tiers"], everything))
        parts.append("\n".join(notes(found.together)))
    for one in found.unreached:
        parts.append(
            f"{one['program']} {one['pid']} used CUDA, but the pool served nothing: {one['reason']}"
        )
    for one in found.processes:
        if one.get("aside"):
            parts.append(f"{one['program']} {one['pid']}: every call was real: {one['aside']}")
    if found.timeline is not None:
        whole = found.timeline
        parts.append(words.table(busiest(traces.trace_rows(found.traces, whole))))
        if any(whole.calls):
            parts.append(words.table(traces.time_rows(whole), left=()))
            parts.append(tiers_as_text(whole.summary()["tiers"], everything))
            parts.append(words.table(traces.outcome_rows(whole)))
        parts.append("\n".join(traces.notes(found.traces)[:MANY]))
    return "\n\n".join(filter(None, parts))


def main(arguments: list[str], find_library) -> int:
    parser = Parser(
        prog="cmp-preload report", description=ABOUT, usage="cmp-preload report [OPTION...] FILE..."
    )
    parser.add_argument(
        "--html", metavar="PAGE", help="write one page with plots (needs matplotlib)"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument(
        "--all", action="store_true", help="every process and size, not the busiest alone"
    )
    parser.add_argument("files", nargs="*", metavar="FILE")
    parsed = parser.parse(arguments)
    if not parsed.files:
        raise Failure("which file? Give statistics files or traces, or a folder of them", 2)
    found = Found(parsed.files, find_library)
    if parsed.json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        print(as_text(found, parsed.all))
    if parsed.html is not None:
        from cmp_preload.page import write_page

        write_page(parsed.html, found)
    return 0
