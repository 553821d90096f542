"""What a trace says: memory over time, sizes, outcomes and latencies. One pass over the calls; what
is kept does not grow with them."""

from __future__ import annotations

import collections

from cmp_preload.records import rounding, tiers
from cmp_preload.records.calls import OUTCOMES, Trace

COUNTERS = {
    "thread_cache": "thread_cache_hits",
    "global_pool": "global_pool_hits",
    "refill": "refills",
    "real": "real",
}
REAL = ("refill", "real", "real_free", "foreign_free")
STEPS = 240  # of the plots over time


class Latencies:
    """How often calls took how long, to 1.6 percent."""

    def __init__(self) -> None:
        self.calls = self.ns = self.max_ns = 0
        self._counts: collections.Counter = collections.Counter()

    def add(self, cost: int) -> None:
        self.calls += 1
        self.ns += cost
        if cost > self.max_ns:
            self.max_ns = cost
        shift = cost.bit_length() - 7
        self._counts[cost >> shift << shift if shift > 0 else cost] += 1

    def add_all(self, other: Latencies) -> None:
        self.calls += other.calls
        self.ns += other.ns
        self.max_ns = max(self.max_ns, other.max_ns)
        self._counts.update(other._counts)

    def quantile(self, ratio: float) -> int:
        before = 0
        for cost, count in sorted(self._counts.items()):
            before += count
            if before > ratio * self.calls:
                return cost
        return self.max_ns

    def summary(self) -> dict:
        return {
            "calls": self.calls,
            "ns": self.ns,
            "p50_ns": self.quantile(0.5),
            "p99_ns": self.quantile(0.99),
            "max_ns": self.max_ns,
        }


def _summaries(latencies: dict[str, Latencies]) -> dict[str, dict]:
    return {name: latencies[name].summary() for name in OUTCOMES if name in latencies}


class Timeline:
    """Of one trace, or of several together; time in equal steps, from the first one's begin."""

    def __init__(self, step_ns: float) -> None:
        self.step_ns = step_ns
        # For each step: the most that was live in it (asked for, and as blocks), and calls.
        self.live = [0] * STEPS
        self.blocks = [0] * STEPS
        self.calls = [0] * STEPS
        self.real_calls = [0] * STEPS
        self.latencies: dict[str, Latencies] = {}
        self.page_locked: dict[str, Latencies] = {}  # of calls for memory of the host
        self.tiers: dict[int, dict] = {}
        self.peak = self.block_peak = self.at_end = self.threads = 0

    def read(self, recorded: Trace, tier_steps: int, offset_ns: int) -> None:
        """The calls of a trace that began `offset_ns` after the first one."""
        known: dict[int, tuple[int, int]] = {}  # pointer to bytes, and those of its block
        rounded: dict[int, tuple[dict, int, int]] = {}
        live = blocks = reached = 0  # the latest step
        threads = set()
        for call in recorded:
            step = min(int((call.moment + offset_ns) / self.step_ns), STEPS - 1)
            if step > reached:
                self._fill(reached + 1, step + 1, live, blocks)
                reached = step
            outcome, pointer = call.outcome, call.pointer
            threads.add(call.thread)
            self.calls[step] += 1
            if outcome not in self.latencies:
                self.latencies[outcome] = Latencies()
            self.latencies[outcome].add(call.cost)
            if outcome in REAL:
                self.real_calls[step] += 1
            if outcome in COUNTERS:
                size = call.bytes
                if size not in rounded:
                    tier, block = self._tier_of(size, tier_steps)
                    rounded[size] = tier, block, rounding.driver_bytes(size)
                tier, block, by_driver = rounded[size]
                if outcome == "real":
                    block = size
                tier["requests"] += 1
                tier[COUNTERS[outcome]] += 1
                tier["requested_bytes"] += size
                tier["block_bytes"] += block
                tier["driver_bytes"] += by_driver
                # An address that is given again was freed where nobody saw it: a context's end.
                gone = known.get(pointer, (0, 0))
                known[pointer] = size, block
                live += size - gone[0]
                blocks += block - gone[1]
                self.live[step] = max(self.live[step], live)
                self.blocks[step] = max(self.blocks[step], blocks)
            elif outcome not in ("failed", "double_free"):
                size, block = known.pop(pointer, (0, 0))
                live -= size
                blocks -= block
        self._fill(reached + 1, STEPS, live, blocks)
        for call in recorded.page_locked:
            self.page_locked.setdefault(call.outcome, Latencies()).add(call.cost)
        self.peak, self.block_peak = max(self.live), max(self.blocks)
        self.at_end, self.threads = live, len(threads)

    def _fill(self, begin: int, end: int, live: int, blocks: int) -> None:
        self.live[begin:end] = [live] * (end - begin)
        self.blocks[begin:end] = [blocks] * (end - begin)

    def _tier_of(self, size: int, steps: int) -> tuple[dict, int]:
        """The row of the tier that serves a request, and the bytes of its block."""
        in_tier = tiers.tier_size(tiers.tier_of(size, steps), steps)
        tier = self.tiers.setdefault(
            in_tier,
            {
                "bytes": in_tier,
                "requests": 0,
                **dict.fromkeys(COUNTERS.values(), 0),
                "requested_bytes": 0,
                "block_bytes": 0,
                "driver_bytes": 0,
            },
        )
        large = tiers.LARGE_GRANULE
        return tier, in_tier if in_tier < large else -(-size // large) * large

    def add_all(self, other: Timeline) -> None:
        """Another process's. The peak is the most that may have been live in one step."""
        for name in ("live", "blocks", "real_calls", "calls"):
            both = zip(getattr(self, name), getattr(other, name))
            setattr(self, name, [a + b for a, b in both])
        for mine, others in (
            (self.latencies, other.latencies),
            (self.page_locked, other.page_locked),
        ):
            for name, latencies in others.items():
                mine.setdefault(name, Latencies()).add_all(latencies)
        for size, tier in other.tiers.items():
            mine = self.tiers.setdefault(size, dict.fromkeys(tier, 0))
            for name, value in tier.items():
                mine[name] = value if name == "bytes" else mine[name] + value
        self.peak, self.block_peak = max(self.live), max(self.blocks)
        self.at_end += other.at_end
        self.threads += other.threads

    def outcomes(self) -> dict[str, dict]:
        return _summaries(self.latencies)

    def page_locked_outcomes(self) -> dict[str, dict]:
        return _summaries(self.page_locked)

    def used_tiers(self) -> list[dict]:
        """As in a statistics file, smallest first."""
        return [self.tiers[size] for size in sorted(self.tiers)]
