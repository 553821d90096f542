"""What the statistics of processes say, as rows and lines; for text and page alike."""

from __future__ import annotations

from cmp_preload.console import words
from cmp_preload.records import counters
from cmp_preload.records.collection import Collection

MANY = 20  # rows of a table, unless all are asked for


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
    marks = [
        mark
        for mark, holds in (
            ("observed", one.get("mode") == "observe"),
            ("not ended", one.get("live")),
        )
        if holds
    ]
    return f"{one['program']} {one['pid']}" + (f" ({', '.join(marks)})" if marks else "")


def _cells(one: dict) -> list[str]:
    totals, process = one["totals"], one["process"]
    return [
        f"{totals['requests']:,}",
        words.floor_percent(totals["hit_rate"]),
        f"{counters.real_calls(process):,}",
        words.seconds(counters.allocation_ns(process) / 1e9),
        words.size(process["reserved_peak_bytes"]),
        counters.waits_in_words(process),
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
    if counters.limit_in_words(process):
        found.append(counters.limit_in_words(process))
    for name, one, several in (
        ("failed_allocations", "allocation failed", "allocations failed"),
        (
            "out_of_memory_rescues",
            "allocation needed idle memory to be released",
            "allocations needed idle memory to be released",
        ),
        ("double_frees", "double free", "double frees"),
        (
            "capture_real_calls",
            "call was real because of a capture",
            "calls were real because of captures",
        ),
        (
            "contexts_dropped",
            "context was reset or destroyed",
            "contexts were reset or destroyed",
        ),
    ):
        if process.get(name):
            found.append(f"{process[name]:,} {one if process[name] == 1 else several}")
    return found


def remarks(found: Collection) -> list[str]:
    """On processes that the pool did not serve."""
    return [
        f"{one['program']} {one['pid']} used CUDA, but the pool served nothing: {one['reason']}"
        for one in found.unreached
    ] + [
        f"{one['program']} {one['pid']}: every call was real: {one['aside']}"
        for one in found.processes
        if one.get("aside")
    ]
