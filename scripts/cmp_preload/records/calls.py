"""The allocations and frees of a process, in their order."""

from __future__ import annotations

import operator
from typing import NamedTuple

# As in shim/record/trace_format.h.
OUTCOME_WORDS = {
    "thread_cache": "allocated: thread cache",
    "global_pool": "allocated: global pool",
    "refill": "allocated: refill (real call)",
    "real": "allocated: real call",
    "failed": "not allocated",
    "pooled": "freed into the pool",
    "waited": "freed into the pool, after a wait",
    "real_free": "freed: real call",
    "foreign_free": "not the pool's: real call",
    "double_free": "not freed: was free already",
}
OUTCOMES = list(OUTCOME_WORDS)
FIRST_FREE = OUTCOMES.index("pooled")


class Call(NamedTuple):
    """One allocation or free. Times are in nanoseconds from the begin of the trace."""

    # When the pointer changed hands: at the end of an allocation, at the begin of a free. In this
    # order no pointer is allocated before it was freed.
    moment: int
    begin: int
    cost: int
    thread: int
    outcome: str
    pointer: int
    bytes: int
    context: int
    device: int
    status: int

    @property
    def allocates(self) -> bool:
        """True for an allocation, failed ones included."""
        return OUTCOMES.index(self.outcome) < FIRST_FREE

    @classmethod
    def of(cls, begin, cost, thread, outcome, pointer, size, context=0, device=0, status=0) -> Call:
        moment = begin + cost if OUTCOMES.index(outcome) < FIRST_FREE else begin
        return cls(moment, begin, cost, thread, outcome, pointer, size, context, device, status)


class Trace:
    """What the header of a trace says, and its calls in the order of their moments. These are read
    when they are asked for, and never all in memory unless the caller keeps them."""

    def __init__(self, calls=(), **header) -> None:
        self.program, self.pid, self.version, self.settings = "", 0, "", {}
        self.host = self.rank = None
        self.command = ""
        self.begin = self.begin_unix = self.lost = 0
        self.ended = True
        self.__dict__.update(header)
        # sorted() is stable: a thread's calls keep their order.
        self._calls = sorted(calls, key=operator.attrgetter("moment"))

    def __iter__(self):
        return iter(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def page_locked(self):
        """Those for page-locked memory of the host, which are not among the others."""
        return iter(())

    @property
    def calls(self) -> list[Call]:
        return list(self)

    @property
    def nanoseconds(self) -> int:
        """From the begin of the trace to the end of the last call."""
        return max((one.begin + one.cost for one in self._calls), default=0)
