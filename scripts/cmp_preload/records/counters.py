"""What the counters of a process, or of several together, say."""

from __future__ import annotations

from cmp_preload.console import words


def hits(counters: dict) -> int:
    """Of a tier, or of all: requests without a real call."""
    return counters["thread_cache_hits"] + counters["global_pool_hits"]


def hit_rate(totals: dict) -> float:
    return hits(totals) / totals["requests"] if totals["requests"] else 0


def derived(counters: dict) -> dict:
    """The counters of a tier, or of all, with what follows from them."""
    requests = hits(counters) + counters["refills"] + counters["real"]
    live_blocks = requests - counters["frees"] - counters["real_frees"]
    return {"requests": requests, **counters, "live_blocks": live_blocks}


def add_up(everyone: list[dict]) -> dict:
    """Totals, process counters and tiers of several processes together. Peaks are added too: the
    processes may have had theirs at once."""
    reached = [one for one in everyone if one["reached"]]

    def sums(dictionaries) -> dict:
        result: dict = {}
        for dictionary in dictionaries:
            for name, value in dictionary.items():
                result[name] = result.get(name, 0) + value
        return result

    totals = sums(one["totals"] for one in reached)
    if totals:
        totals["hit_rate"] = hit_rate(totals)
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


def allocating_ns(process: dict) -> int:
    """During which a thread at least was inside real calls, as far as that was counted; else as
    above."""
    return process.get("allocating_ns") or (allocation_ns(process) if process else 0)


def allocates_in_order(process: dict) -> bool:
    """From stream-ordered pools. What these cost is no part of the time in real calls: they give
    memory back in synchronisations."""
    return process.get("async_allocations", 0) > 0


def held_peak(process: dict) -> int:
    """The most that the pool, and the driver's pools for it, held; maybe not at once."""
    return process["reserved_peak_bytes"] + process.get("kept_peak_bytes", 0)


def page_locked_ns(process: dict) -> int:
    """Inside real calls for page-locked memory of the host, all threads together; 0 where a library
    did not count them."""
    return process.get("host_real_malloc_ns", 0) + process.get("host_real_free_ns", 0)


def allocates_page_locked_in_a_loop(process: dict) -> bool:
    """By real calls. With fewer frees of them it is allocated at the program's start."""
    return process.get("host_real_free_calls", 0) >= 20


def real_calls(process: dict) -> int:
    return process["real_malloc_calls"] + process["real_free_calls"]


def waits_in_words(process: dict) -> str:
    """Frees that waited, for how long and why."""
    if not process["wait_calls"]:
        return "none"
    reasons = list(wait_reasons(process).items())
    named = [f"{name.replace('_', ' ')} {count:,}" for name, count in reasons[:3]]
    if reasons[3:]:
        named.append(f"other reasons {sum(count for _, count in reasons[3:]):,}")
    why = ", ".join(named)
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
