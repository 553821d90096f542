"""What the statistics of processes say, as rows and lines; for text and page alike."""

from __future__ import annotations

from cmp_preload.console import words
from cmp_preload.records import counters, rounding, runs

MANY = 20  # rows of a table, unless all are asked for
SEVERAL = 4  # values of one fact


def _rows(processes: list[dict], together: dict, head: list[str], cells) -> list[list[str]]:
    """One row for each process, by rank or busiest first; one for each host where there are
    several; one for all."""
    ranks, hosts = runs.ranked(processes), runs.hosts(processes)
    rows = [[*(["rank"] if ranks else []), *(["host"] if len(hosts) > 1 else []), "process", *head]]
    for one in runs.in_order(processes):
        run = runs.of(one)
        row = [_text(run["rank"])] if ranks else []
        row += [_text(run["host"])] if len(hosts) > 1 else []
        rows.append([*row, name_of(one), *cells(one)])
    for host in hosts if len(hosts) > 1 else []:
        its = [one for one in processes if runs.of(one)["host"] == host]
        row = ["", host] if ranks else [host]
        rows.append([*row, f"all {len(its)} of it", *cells(_sum_of(its))])
    if len(processes) > 1:
        names = [""] * (len(rows[0]) - len(head) - 1)
        whole = {**together, "run": _run_of(processes), "several": True}
        rows.append([*names, f"all {len(processes)}", *cells(whole)])
    return rows


def names_in(rows: list[list[str]]) -> int:
    """How many columns of a table of processes name the process."""
    return rows[0].index("process") + 1


def sums_in(processes: list[dict]) -> int:
    """How many rows at its end are sums."""
    hosts = len(runs.hosts(processes))
    return (hosts if hosts > 1 else 0) + (len(processes) > 1)


def _sum_of(processes: list[dict]) -> dict:
    together = counters.add_up(processes)
    return {**together, "run": _run_of(processes), "several": len(processes) > 1}


def _run_of(processes: list[dict]) -> dict:
    """Of processes that ran side by side: the longest."""
    times = [runs.of(one)["nanoseconds"] for one in processes]
    return {"nanoseconds": max((time for time in times if time is not None), default=None)}


def _text(value) -> str:
    return "" if value is None else str(value)


def notable(processes: list[dict]) -> list[dict]:
    """Those of a table that has no room for all: with most allocations, or time in them."""
    requests = sum(one["totals"]["requests"] for one in processes) or 1
    ns = sum(counters.allocation_ns(one["process"]) for one in processes) or 1

    def weight(one: dict) -> float:
        return max(
            one["totals"]["requests"] / requests, counters.allocation_ns(one["process"]) / ns
        )

    return with_most(processes, weight)


def with_most(processes: list[dict], weight) -> list[dict]:
    """As many as a table or a plot has room for, in the order of all."""
    most = sorted(processes, key=lambda one: -weight(one))[:MANY]
    return [one for one in runs.in_order(processes) if any(one is other for other in most)]


def process_rows(processes: list[dict], together: dict) -> list[list[str]]:
    head = ["allocations", "hit rate", "real calls", "ran", "in allocation", "frees that waited"]
    return _rows(processes, together, head, _cells)


def memory_rows(processes: list[dict], together: dict) -> list[list[str]]:
    """What the pool holds, beside what the program does. Peaks of several may not have been at once."""
    head = ["program's peak", "pool's peak", "more", "program at end", "idle at end"]
    return _rows(processes, together, head, _memory_cells)


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


def label_of(one: dict, processes: list[dict]) -> str:
    """The same as short as it may be among others."""
    run = runs.of(one)
    if not runs.ranked(processes) or run["rank"] is None:
        return name_of(one)
    return f"rank {run['rank']}" + (f" {run['host']}" if len(runs.hosts(processes)) > 1 else "")


def _cells(one: dict) -> list[str]:
    totals, process = one["totals"], one["process"]
    ran = runs.of(one)["nanoseconds"]
    return [
        f"{totals['requests']:,}",
        words.floor_percent(totals["hit_rate"]) if totals["requests"] else "",
        f"{counters.real_calls(process):,}",
        "" if ran is None else words.seconds(ran / 1e9),
        words.seconds(counters.allocation_ns(process) / 1e9),
        counters.waits_in_words(process),
    ]


def _memory_cells(one: dict) -> list[str]:
    totals, process = one["totals"], one["process"]
    live, held = process["live_peak_bytes"], process["reserved_peak_bytes"]
    at_end = totals.get("block_bytes", 0) - totals.get("block_freed_bytes", 0)
    idle = max(0, process.get("reserved_bytes", 0) - at_end)
    peak = "up to " if one.get("several") else ""
    return [
        peak + words.size(live),
        peak + words.size(held),
        words.share(max(0, held - live), live) if live else "",
        words.size(max(0, at_end)),
        words.size(idle),
    ]


def device_rows(processes: list[dict]) -> list[list[str]]:
    """What each device's contexts held at the end, of the processes that used several."""
    rows = [["process", "device", "live", "idle", "held in all", "live peak", "limit"]]
    for one in runs.in_order(processes):
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
            "asked for",
            "driver rounds up",
            "pool rounds up",
        ]
    ]
    for tier in tiers:
        rounded = rounding.of_tier(tier)
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
                words.size(rounded.asked),
                words.share(rounded.by_driver, rounded.asked),
                words.share(rounded.by_pool, rounded.asked),
            ]
        )
    return rows


def notable_tiers(tiers: list[dict]) -> list[dict]:
    """The sizes of a table that has no room for all: with most of the allocations or bytes."""
    requests = sum(tier["requests"] for tier in tiers) or 1
    taken = sum(rounding.of_tier(tier).taken for tier in tiers) or 1

    def weight(tier: dict) -> float:
        return max(tier["requests"] / requests, rounding.of_tier(tier).taken / taken)

    most = sorted(tiers, key=lambda tier: -weight(tier))[:MANY]
    return [tier for tier in tiers if any(tier is one for one in most)]


def run_rows(processes: list[dict], everything: bool) -> list[list[str]]:
    """Command, host, GPU, settings and the like: each value once, and of how many processes."""

    def counted(values: list[str]) -> list[str]:
        return _counted(values, len(values) if everything else SEVERAL)

    everyone = [runs.of(one) for one in processes]
    ranks = sorted({run["rank"] for run in everyone} - {None})
    begins = sorted({run["begin"] for run in everyone} - {None})
    versions = [f"cmp {one['version']}" for one in processes if isinstance(one.get("version"), str)]
    drivers = [
        ", ".join(
            part
            for part in (run["driver"], f"CUDA {run['cuda']}" if run["cuda"] else "")
            if part
        )
        for run in everyone
    ]
    gpus = [", ".join(_numbered(runs.gpus_of(one))) for one in processes]
    times = [run["nanoseconds"] for run in everyone if run["nanoseconds"] is not None]
    facts = {
        "command": counted([run["command"] for run in everyone]),
        "host": counted([run["host"] or "" for run in everyone]),
        "rank": [_ranges(ranks)] if ranks else [],
        "GPU": counted(gpus),
        "driver": counted(drivers),
        "pool": counted(versions),
        "settings": counted([" ".join(run["settings"]) for run in everyone]),
        "began": [begins[0] + (f" to {begins[-1]}" if len(begins) > 1 else "")] if begins else [],
        "ran": [
            words.seconds(min(times) / 1e9)
            + (f" to {words.seconds(max(times) / 1e9)}" if len(times) > 1 else "")
        ]
        if times
        else [],
    }
    return [[name, value] for name, values in facts.items() for value in values]


def _counts(values: list[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in filter(None, values):
        counts[value] = counts.get(value, 0) + 1
    return counts


def _numbered(values: list[str]) -> list[str]:
    """As 2 × NVIDIA H200."""
    found = _counts(values).items()
    return [value if count == 1 else f"{count} × {value}" for value, count in found]


def _counted(values: list[str], most: int) -> list[str]:
    """Each value once, most frequent first, with its number where there are several."""
    ordered = sorted(_counts(values).items(), key=lambda item: -item[1])
    alone = len(ordered) == 1 and ordered[0][1] == len(values)
    shown = [
        value if alone else f"{value} ({words.count(count, 'process')})"
        for value, count in ordered[:most]
    ]
    return shown + ([f"… {len(ordered) - most} others (--all)"] if len(ordered) > most else [])


def _ranges(numbers: list[int]) -> str:
    """As 0-3, 7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("–".join(map(str, part)) for part in parts)


def _stream_ordered(process: dict) -> str:
    what = words.count(process["async_allocations"], "stream-ordered allocation")
    if not process["kept_pools"]:
        return f"{what}; the driver's pools that serve them kept no memory"
    aged, released = process["kept_aged_bytes"], process["kept_released_bytes"]
    seen = process["kept_peak_bytes"]  # in short runs never
    return (
        f"{what}; {words.count(process['kept_pools'], 'pool')} of the driver's kept memory"
        + (f", up to {words.size(seen)}" if seen else "")
        + f", and gave back {words.size(aged)} after CMP_DECAY, {words.size(released)} for calls "
        "that lacked memory or asked about it"
    )


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
    if process.get("async_allocations"):
        found.append(_stream_ordered(process))
    for name, one, several in (
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
