"""Statistics files: the JSON that a process left at its end, or the counters (FILE.live) of one
that still runs or was killed."""

from __future__ import annotations

import json
import os
import struct

from cmp_preload.console import words
from cmp_preload.console.errors import Failure

JSON_BEGINNING = b'{\n  "cmp_statistics":'
LIVE_BEGINNING = b"CMPSTAT\0"
SCHEMA = 1
HEADER = struct.Struct("<8sIIIIIIQIIII64s")  # StatisticsHeader of core/statistics.h


LARGE_GRANULE = 2 << 20  # larger blocks are multiples of it; as in core/tiers.h


def tier_of(size: int, steps: int) -> int:
    """The tier that serves a request; as in core/tiers.h."""
    unit = (size - 1) // 256
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
    sums = [[0] * tier_counters for _ in range(tier_count)]
    row = struct.Struct(f"<{tier_counters}Q")
    for slot in range(min(slots, slot_count)):
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
        return found
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, struct.error) as error:
        raise Failure(f"{path}: {error}") from None


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
    why = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in reasons)
    return f"{process['wait_calls']:,}, {words.seconds(process['wait_ns'] / 1e9)}" + (
        f" ({why})" if why else ""
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
    return f"the memory limit rose by up to {words.size(extra)}, because {released}"
