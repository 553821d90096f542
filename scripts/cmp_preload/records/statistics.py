"""Statistics files: the JSON that a process left at its end, or the counters (FILE.live) of one
that still runs or was killed."""

from __future__ import annotations

import json
import os
import struct

from cmp_preload.console import words
from cmp_preload.console.errors import Failure
from cmp_preload.records import live, runs

JSON_BEGINNING = b'{\n  "cmp_statistics":'
FORMAT = 1  # scripts/docs/formats/README.md says what another one means
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


def read(path: str, find_library) -> dict:
    """The statistics in `path`. Failure with one line if it holds none."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        if data.startswith(live.BEGINNING):
            return live.read(data, find_library)
        if not data.startswith(JSON_BEGINNING):
            raise ValueError("not a statistics file")
        found = _parsed(data)
        if found["cmp_statistics"] != FORMAT:
            form = words.shorten(repr(found["cmp_statistics"]), 40)
            raise ValueError(f"statistics of format {form}; this cmp-preload reads {FORMAT}")
        _check(found)
        return found
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    except struct.error:
        raise Failure(f"{path}: cut off or damaged") from None
    except ValueError as error:
        raise Failure(f"{path}: {error}") from None


def _parsed(data: bytes) -> dict:
    """ValueError where it is no JSON, no text, or has a number that is none of a library's."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("not a statistics file") from None
    except ValueError:
        raise ValueError("cut off or damaged") from None


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
    if "run" in found:
        check("run", runs.is_right)
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
    if "later_functions" in found:
        check("later_functions", lambda names: isinstance(names, list) and all(map(is_text, names)))


def files_in(folder: str) -> list[str]:
    """Statistics files in a folder: of two of one process, the one that it left at its end."""
    names = sorted(os.listdir(folder))
    return [
        os.path.join(folder, name)
        for name in names
        if name.endswith(".json") or (name.endswith(".live") and name[: -len(".live")] not in names)
    ]
