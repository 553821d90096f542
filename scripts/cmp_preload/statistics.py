"""Statistics files: the JSON that a process left at its end, or the counters (FILE.live) of one
that still runs or was killed."""

from __future__ import annotations

import json
import os
import struct

from cmp_preload import text
from cmp_preload.cli import Failure

JSON_BEGINNING = b'{\n  "cmp_statistics":'
LIVE_BEGINNING = b"CMPSTAT\0"
SCHEMA = 1
HEADER = struct.Struct("<8sIIIIIIQIIII64s")  # StatisticsHeader of core/statistics.h


# What a report of a process has, at least; more in each is welcome. Numbers are counters of 64 bits.
NEEDED = {
    "totals": "requests thread_cache_hits global_pool_hits refills real frees real_frees hit_rate",
    "process": "real_malloc_calls real_malloc_ns real_free_calls real_free_ns wait_calls wait_ns "
    "skipped_wait_min_ns skipped_wait_max_ns failed_allocations out_of_memory_rescues "
    "reserve_extra_peak_bytes reserved_peak_bytes live_peak_bytes",
    "tiers": "bytes requests thread_cache_hits global_pool_hits refills real requested_bytes "
    "block_bytes",
    "devices": "device live_block_bytes ready_bytes retired_bytes reserved_bytes live_peak_bytes "
    "bound_bytes",
}
MOST_TIER_BYTES = (1 << 47) - 1  # as in core/pool.cpp
TIER_STEPS = (1, 2, 4, 8, 16)
LARGE_GRANULE = 2 << 20  # larger blocks are multiples of it; as in core/tiers.h


def tier_of(size: int, steps: int) -> int:
    """The tier that serves a request; as in core/tiers.h. One of 0 bytes, in a CSV: the first."""
    unit = (max(size, 1) - 1) // 256
    doubling = (unit | steps).bit_length() - steps.bit_length()
    return doubling * steps + (unit >> doubling)


def tier_size(tier: int, steps: int) -> int:
    """The bytes of a block of a tier; as in core/tiers.h."""
    if tier < steps:
        return (tier + 1) * 256
    doubling = tier // steps - 1
    return ((tier - doubling * steps + 1) << doubling) * 256


def _read_live(data: bytes, find_library) -> dict:
    (
        _,
        schema,
        header_bytes,
        slot_bytes,
        slot_count,
        tier_count,
        steps,
        pid,
        tier_counters,
        process_counters,
        slots,
        _,
        program,
    ) = HEADER.unpack_from(data)
    library = find_library()
    tier_names, process_names = library.counters("tier"), library.counters("process")
    if schema != SCHEMA or (tier_counters, process_counters) != (
        len(tier_names),
        len(process_names),
    ):
        raise ValueError(f"counters of another version of the pool than {library.path}")
    process = struct.unpack_from(f"<{process_counters}Q", data, HEADER.size)
    row = struct.Struct(f"<{tier_counters}Q")
    slots = min(slots, slot_count)
    if (
        steps not in TIER_STEPS
        or tier_count != tier_of(MOST_TIER_BYTES, steps) + 1
        or slot_bytes < tier_count * row.size
        or header_bytes + slots * slot_bytes > len(data)
    ):
        raise ValueError("the counters are damaged")
    sums = [[0] * tier_counters for _ in range(tier_count)]
    for slot in range(slots):
        for tier, counters in enumerate(sums):
            at = header_bytes + slot * slot_bytes + tier * row.size
            sums[tier] = [a + b for a, b in zip(counters, row.unpack_from(data, at))]
    tiers = []
    for tier, counters in enumerate(sums):
        if any(counters):
            named = dict(zip(tier_names, counters))
            tiers.append({"bytes": tier_size(tier, steps), "requests": _requests(named), **named})
    totals = {name: sum(tier[name] for tier in tiers) for name in tier_names}
    requests = _requests(totals)
    totals = {
        "requests": requests,
        **totals,
        "live_blocks": requests - totals["frees"] - totals["real_frees"],
        "hit_rate": hits(totals) / requests if requests else 0,
    }
    return {
        "cmp_statistics": SCHEMA,
        "live": True,
        "reached": True,
        "program": program.rstrip(b"\0").decode(errors="replace"),
        "pid": pid,
        "totals": totals,
        "process": dict(zip(process_names, process)),
        "tiers": tiers,
    }


def _requests(counters: dict) -> int:
    return hits(counters) + counters["refills"] + counters["real"]


def hits(counters: dict) -> int:
    return counters["thread_cache_hits"] + counters["global_pool_hits"]


def read(path: str, find_library) -> dict:
    """The statistics in `path`. Failure with one line if it holds none."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        if data.startswith(LIVE_BEGINNING):
            return _read_live(data, find_library)
        if not data.startswith(JSON_BEGINNING):
            raise ValueError("not a statistics file")
        found = json.loads(data)
        if found["cmp_statistics"] != SCHEMA:
            raise ValueError("statistics of another version of the pool")
        _check(found)
        return found
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    except RecursionError:
        raise Failure(f"{path}: not a statistics file") from None
    except (ValueError, struct.error) as error:
        raise Failure(f"{path}: {error}") from None


def _check(found: dict) -> None:
    """ValueError if a report could not be made of it."""

    def check(name: str, is_right) -> None:
        if name not in found or not is_right(found[name]):
            raise ValueError(f"damaged: its {name} cannot be")

    def is_counter(value) -> bool:
        return type(value) in (int, float) and 0 <= value < 1 << 64

    def are_counters(name: str):
        needed = set(NEEDED[name].split())
        return lambda found: (
            isinstance(found, dict)
            and needed <= found.keys()
            and all(map(is_counter, found.values()))
        )

    def is_text(value) -> bool:
        return isinstance(value, str)

    check("reached", lambda reached: isinstance(reached, bool))
    check("program", is_text)
    check("pid", is_counter)
    if not found["reached"]:
        check("reason", is_text)
        return
    for name in ("totals", "process"):
        check(name, are_counters(name))
    for name in ("tiers", "devices"):
        if name in found or name == "tiers":
            is_row = are_counters(name)
            check(name, lambda rows: isinstance(rows, list) and all(map(is_row, rows)))
    if found.get("aside") is not None:
        check("aside", is_text)


def files_in(folder: str) -> list[str]:
    """Statistics files in a folder: of two of one process, the one that it left at its end."""
    names = sorted(os.listdir(folder))
    return [
        os.path.join(folder, name)
        for name in names
        if name.endswith(".json") or (name.endswith(".live") and name[: -len(".live")] not in names)
    ]


def add_up(statistics: list[dict]) -> dict:
    """Totals, process counters and tiers of several processes together. Peaks are added too: the
    processes may have had theirs at once."""
    reached = [one for one in statistics if one["reached"]]

    def sums(dictionaries) -> dict:
        result: dict = {}
        for dictionary in dictionaries:
            for name, value in dictionary.items():
                result[name] = result.get(name, 0) + value
        return result

    totals = sums(one["totals"] for one in reached)
    if totals:
        totals["hit_rate"] = hits(totals) / totals["requests"] if totals["requests"] else 0
    sizes = sorted({tier["bytes"] for one in reached for tier in one["tiers"]})
    tiers = [
        {
            **sums(tier for one in reached for tier in one["tiers"] if tier["bytes"] == size),
            "bytes": size,
        }
        for size in sizes
    ]
    return {"totals": totals, "process": sums(one["process"] for one in reached), "tiers": tiers}


def wait_reasons(process: dict) -> dict[str, int]:
    """Why frees waited: reason to count, most frequent first. Every counter wait_REASON is one."""
    found = {
        name[len("wait_") :]: value
        for name, value in process.items()
        if name.startswith("wait_")
        and name not in ("wait_calls", "wait_ns")
        and not name.endswith("_ns")
        and value
    }
    if process.get("bound_waits"):
        found.setdefault("bound", process["bound_waits"])
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def allocation_ns(process: dict) -> int:
    """Inside real calls and waits, all threads together."""
    return process["real_malloc_ns"] + process["real_free_ns"] + process["wait_ns"]


def waits_in_words(process: dict) -> str:
    """Frees that waited, for how long and why."""
    if not process["wait_calls"]:
        return "none"
    reasons = list(wait_reasons(process).items())[:3]
    words = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in reasons)
    return f"{process['wait_calls']:,}, {text.seconds(process['wait_ns'] / 1e9)}" + (
        f" ({words})" if words else ""
    )


def limit_in_words(process: dict) -> str:
    """What became of the memory limit under CMP_RESERVE=auto; nothing if it stayed."""
    regretted = process.get("regretted_releases", 0)
    if not regretted:
        return ""
    released = f"{regretted:,} of the blocks that were released for it had to be allocated again"
    extra = process["reserve_extra_peak_bytes"]
    if not extra:
        return f"the memory limit had no room to rise, although {released}"
    return f"the memory limit rose by up to {text.size(extra)}, because {released}"
