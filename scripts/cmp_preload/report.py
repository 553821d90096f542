"""cmp-preload report: what statistics files of one or many processes say."""

from __future__ import annotations

import json
import os

from cmp_preload import statistics, text
from cmp_preload.cli import Failure, Parser

ABOUT = """FILE is what CMP_STATS or cmp-preload run --reports left: the JSON of a process that
ended, or FILE.live of one that runs or was killed. A folder stands for all of them in it."""

MANY = 20  # rows of a table, unless all are asked for


def read_all(paths: list[str], find_library) -> list[dict]:
    """Statistics of every file, with its "file"."""
    files: list[str] = []
    for path in paths:
        if not os.path.isdir(path):
            files.append(path)
            continue
        try:
            found = statistics.files_in(path)
        except OSError as error:
            raise Failure(f"{path}: {error.strerror}") from None
        if not found:
            raise Failure(f"{path}: no statistics files (*.json, *.live) are in it")
        files += found
    return [{"file": path, **statistics.read(path, find_library)} for path in files]


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
        text.floor_percent(totals["hit_rate"]),
        f"{process['real_malloc_calls'] + process['real_free_calls']:,}",
        text.seconds(statistics.allocation_ns(process) / 1e9),
        text.size(process["reserved_peak_bytes"]),
        statistics.waits_in_words(process),
    ]


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
                text.size(tier["bytes"]),
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
        [f"{text.count(totals['real_calls_avoided'], 'real call')} avoided"]
        if totals.get("real_calls_avoided")
        else []
    )
    if process.get("skipped_waits"):
        found.append(
            f"{text.count(process['skipped_waits'], 'free')} did not wait where the real one would "
            f"have, for {text.seconds(process['skipped_wait_min_ns'] / 1e9)} to "
            f"{text.seconds(process['skipped_wait_max_ns'] / 1e9)}"
        )
    for name, words in (
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
            singular, plural = words.split("|")
            found.append(f"{process[name]:,} {singular if process[name] == 1 else plural}")
    return found


def as_text(processes: list[dict], together: dict, unreached: list[dict], everything: bool) -> str:
    parts = []
    if processes:
        rows = process_rows(processes, together)
        shown = (
            rows
            if everything or len(rows) <= MANY + 2
            else rows[: MANY + 1]
            + [[f"… {len(rows) - MANY - 2} more", *[""] * (len(rows[0]) - 1)], rows[-1]]
        )
        parts.append(text.table(shown, left=(0, len(rows[0]) - 1)))
        tiers = together["tiers"]
        if not everything and len(tiers) > MANY:
            busiest = sorted(tiers, key=lambda tier: -tier["requests"])[:MANY]
            tiers = [tier for tier in tiers if tier in busiest]
        if tiers:
            left_out = len(together["tiers"]) - len(tiers)
            parts.append(
                text.table(tier_rows(tiers))
                + (f"\n… {left_out} sizes with fewer allocations (--all)" if left_out else "")
            )
        if notes(together):
            parts.append("\n".join(notes(together)))
    for one in unreached:
        parts.append(
            f"{one['program']} {one['pid']} used CUDA, but the pool served nothing: {one['reason']}"
        )
    return "\n\n".join(parts)


def main(arguments: list[str], find_library) -> int:
    parser = Parser(
        prog="cmp-preload report", description=ABOUT, usage="cmp-preload report [OPTION...] FILE..."
    )
    parser.add_argument(
        "--html", metavar="PAGE", help="write one page with plots (needs matplotlib)"
    )
    parser.add_argument("--json", action="store_true", help="print the sum as JSON")
    parser.add_argument(
        "--all", action="store_true", help="every process and size, not the busiest alone"
    )
    parser.add_argument("files", nargs="*", metavar="FILE")
    parsed = parser.parse(arguments)
    if not parsed.files:
        raise Failure("which file? Give statistics files, or a folder of them", 2)
    everyone = read_all(parsed.files, find_library)
    processes = [one for one in everyone if one["reached"]]
    unreached = [one for one in everyone if not one["reached"]]
    together = statistics.add_up(everyone)
    if parsed.json:
        print(json.dumps({"cmp_report": 1, **together, "processes": everyone}, indent=2))
    else:
        print(as_text(processes, together, unreached, parsed.all))
    if parsed.html is not None:
        from cmp_preload.page import write_page

        write_page(parsed.html, processes, together, unreached)
    return 0
