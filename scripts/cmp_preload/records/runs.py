"""Which run a process was: command, host, rank, GPUs, settings, begin. In a statistics file under `run`;
one of a library that did not say has none."""

from __future__ import annotations

import datetime
import struct

# StatisticsRun of core/base/statistics.h.
PAGE = struct.Struct("<QII80s16s32s1024s1024s")
GPU_BYTES, MOST_GPUS = 64, 16
NO_GPU = "no allocation of it came to a driver with a GPU"
TEXTS = ("host", "driver", "cuda", "begin")


def of(one: dict) -> dict:
    """What is known of a process: each field is there, None or empty where it is not known."""
    none = dict.fromkeys((*TEXTS, "rank", "nanoseconds"))
    return {"command": "", **none, "gpus": [], "settings": [], **one.get("run", {})}


def is_right(run) -> bool:
    """Can `run` be what a library wrote? More fields are welcome."""

    def is_count(value) -> bool:
        return type(value) is int and 0 <= value < 1 << 64

    def are_texts(value) -> bool:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)

    if not isinstance(run, dict):
        return False
    known = of({"run": run})
    return (
        isinstance(known["command"], str)
        and all(known[name] is None or isinstance(known[name], str) for name in TEXTS)
        and all(known[name] is None or is_count(known[name]) for name in ("rank", "nanoseconds"))
        and are_texts(known["gpus"])
        and are_texts(known["settings"])
    )


def read_page(data: bytes, offset: int) -> dict:
    """The same from FILE.live; when such a process ended is not known."""
    begin, cuda, gpus, *texts = PAGE.unpack_from(data, offset)
    host, rank, driver, command, settings = map(_text, texts)
    names = offset + PAGE.size
    return {
        "command": command,
        "host": host or None,
        "rank": rank_of(rank),
        "begin": date_of(begin),
        "nanoseconds": None,
        "driver": driver or None,
        "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
        "gpus": [
            _text(data[names + i * GPU_BYTES : names + (i + 1) * GPU_BYTES])
            for i in range(min(gpus, MOST_GPUS))
        ],
        "settings": [line for line in settings.split("\n") if line],
    }


def rank_of(text: str):
    """None where it is no number."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode(errors="replace")


def date_of(unix_ns: int):
    """In UTC, as a statistics file has it; None where no clock was asked."""
    if not unix_ns:
        return None
    try:
        moment = datetime.datetime.fromtimestamp(unix_ns // 10**9, datetime.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return None
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def came_to_no_gpu(one: dict) -> bool:
    """It called CUDA, and no allocation succeeded, counted or not: the driver's version is asked at
    the first one that finds a device."""
    process = one.get("process", {})
    return (
        one["reached"]
        and one.get("mode") in ("pool", "observe")
        and "run" in one
        and of(one)["cuda"] is None
        and not one["totals"]["requests"]
        and not process.get("async_allocations")
        and not process.get("host_real_malloc_calls")
    )


def setting(one: dict, name: str):
    """The value of a variable of the process in lower case, as it counts; None where it was not
    set."""
    found = [
        line.split("=", 1)[1].lower() for line in of(one)["settings"] if line.startswith(name + "=")
    ]
    return found[0] if found else None


def gpus_of(one: dict) -> list[str]:
    """The GPUs that a process used; those that it saw where that is not known."""
    names = of(one)["gpus"]
    used = sorted({int(row["device"]) for row in one.get("devices", [])})
    return [names[device] for device in used if device < len(names)] or names


def ranked(processes: list[dict]) -> bool:
    """Are they ranks of a launcher's?"""
    return len({of(one)["rank"] for one in processes} - {None}) > 1


def hosts(processes: list[dict]) -> list[str]:
    return sorted({of(one)["host"] for one in processes} - {None, ""})


def in_order(processes: list[dict]) -> list[dict]:
    """By rank where there are ranks, else the busiest first."""

    def key(one: dict):
        run = of(one)
        rank = (0, run["rank"]) if run["rank"] is not None else (1, 0)
        busy = -one["totals"]["requests"] if one["reached"] else 0
        return (*rank, run["host"] or "", busy, one["pid"]) if ranks else (busy,)

    ranks = ranked(processes)
    return sorted(processes, key=key)
