"""FILE.live: the page of counters of a process that runs or was killed. Layout and order are those of
core/base/statistics.h; the counters' names are asked of the library."""

from __future__ import annotations

import struct

from cmp_preload.records import counters, runs, tiers

BEGINNING = b"CMPSTAT\0"
FORMAT = 1
HEADER = struct.Struct("<8sIIIIIIQIIII64s")  # StatisticsHeader


def read(data: bytes, find_library) -> dict:
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
        run_offset,
        program,
    ) = HEADER.unpack_from(data)
    library = find_library()
    tier_names, process_names = library.counters("tier"), library.counters("process")
    if schema != FORMAT or (tier_counters, process_counters) != (
        len(tier_names),
        len(process_names),
    ):
        raise ValueError(f"counters of another version of the pool than {library.path}")
    process = struct.unpack_from(f"<{process_counters}Q", data, HEADER.size)
    row = struct.Struct(f"<{tier_counters}Q")
    slots = min(slots, slot_count)
    if (
        steps not in tiers.STEPS
        or tier_count != tiers.tier_of(tiers.MOST_TIER_BYTES, steps) + 1
        or slot_bytes < tier_count * row.size
        or header_bytes + slots * slot_bytes > len(data)
    ):
        raise ValueError("the counters are damaged")
    sums = [[0] * tier_counters for _ in range(tier_count)]
    for slot in range(slots):
        for tier, so_far in enumerate(sums):
            at = header_bytes + slot * slot_bytes + tier * row.size
            sums[tier] = [a + b for a, b in zip(so_far, row.unpack_from(data, at))]
    used = [
        {"bytes": tiers.tier_size(tier, steps), **counters.derived(dict(zip(tier_names, counted)))}
        for tier, counted in enumerate(sums)
        if any(counted)
    ]
    totals = counters.derived({name: sum(tier[name] for tier in used) for name in tier_names})
    return {
        "cmp_statistics": 1,  # as the JSON that the process would have left
        "live": True,
        "reached": True,
        "program": program.rstrip(b"\0").decode(errors="replace"),
        "pid": pid,
        **({"run": runs.read_page(data, run_offset)} if run_offset else {}),
        "totals": {**totals, "hit_rate": counters.hit_rate(totals)},
        "process": dict(zip(process_names, process)),
        "tiers": used,
    }
