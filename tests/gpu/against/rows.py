"""What compare_all.py measures: parts of rows, each row a request of build/against."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass
class Row:
    name: str
    request: str


@dataclass
class Part:
    name: str
    what: str
    rows: list[Row]
    share: float  # of the time
    repetitions: int = 0  # fewer than others
    anew: bool = False  # each repetition in new processes; else those of the part before
    one_at_a_time: bool = False  # and no other process meanwhile: each may take much memory
    reserve_bytes: int = 4 * GIB  # what an allocator may take at its start


@dataclass
class Size:
    """How much is measured."""
    repetitions: int
    milliseconds: int  # a row, a repetition
    live: int
    iterations: int
    calls: int  # of a trace
    few: bool  # fewer rows, smaller ones


FULL = Size(repetitions=5, milliseconds=25, live=100_000, iterations=500, calls=5_000, few=False)
QUICK = Size(repetitions=3, milliseconds=10, live=20_000, iterations=200, calls=2_000, few=True)
SIMULATED = Size(repetitions=2, milliseconds=1, live=300, iterations=10, calls=500, few=True)


def bytes_in_words(count: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if count >= unit:
            return f"{count / unit:g} {name}"
    return f"{count} B"


def several(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def row(size: Size, words: str, workload: str, busy: bool | None = None, **values) -> Row:
    if busy is not None:
        words += ", busy" if busy else ", idle"
        values["busy"] = int(busy)
    values.setdefault("milliseconds", size.milliseconds)
    return Row(words, " ".join([workload, *(f"{name}={value}" for name, value in values.items())]))


def pairs(size: Size) -> list[Row]:
    sizes = [256, 4 * KIB, 64 * KIB, MIB, 16 * MIB, 256 * MIB, GIB]
    some = {1: sizes, 4: [4 * KIB, MIB, 16 * MIB, 256 * MIB], 16: [4 * KIB, MIB, 16 * MIB],
            64: [4 * KIB, MIB]}
    while_busy = {1: [4 * KIB, MIB, 16 * MIB], 16: [4 * KIB, MIB]}
    if size.few:
        some = {1: [256, 4 * KIB, MIB, 16 * MIB, GIB], 16: [4 * KIB, MIB]}
        while_busy = {1: [4 * KIB, 16 * MIB]}
    return [row(size, f"{bytes_in_words(count)}, {several(threads, 'thread')}", "pairs", busy,
                bytes=count, threads=threads)
            for busy, cases in ((False, some), (True, while_busy))
            for threads, all_of in cases.items() for count in all_of]


def live(size: Size) -> list[Row]:
    cases = [(1, False), (1, True)] if size.few else [(1, False), (16, False), (1, True)]
    return [row(size, f"random sizes beside {size.live:,} blocks, {several(threads, 'thread')}",
                "live", busy, count=size.live, threads=threads) for threads, busy in cases]


def loops(size: Size) -> list[Row]:
    return [row(size, f"{several(streams, 'stream')}, "
                f"freed on {'another one' if other else 'the same'}",
                "loop", streams=streams, other=other, iterations=size.iterations)
            for other in (0, 1) for streams in (1, 4)] + [
        row(size, f"{several(streams, 'stream')}, kernels that do nothing: the host's time",
            "loop", streams=streams, kernel_ns=0, iterations=4 * size.iterations)
        for streams in (1, 2)]


def hand_overs(size: Size) -> list[Row]:
    return [row(size, f"{several(count, 'pair')} of threads", "hand-over", busy, pairs=count)
            for busy in (False, True) for count in (1, 8)]


def threads(size: Size) -> list[Row]:
    return [row(size, "a thread of one pair", "thread", busy) for busy in (False, True)]


def questions(size: Size) -> list[Row]:
    return [row(size, name, "question", of=of)
            for of, name in (("attributes", "cudaPointerGetAttributes"),
                             ("memory", "cudaMemGetInfo"), ("stream", "cudaStreamSynchronize"))]


def random(size: Size, simulated: bool) -> list[Row]:
    """RMM's random_allocations."""
    cases = [(1000, MIB, False), (1000, 64 * MIB, False), (10000, 4 * MIB, False),
             (1000, 64 * MIB, True)]
    if size.few:
        cases = [(1000, MIB, False), (1000, 64 * MIB, False)]
    if simulated:
        cases = [(50, MIB, False), (50, MIB, True)]
    return [row(size, f"{count:,} blocks of up to {bytes_in_words(most)}", "random", busy,
                count=count, most=most) for count, most, busy in cases]


def first(size: Size, busy: bool) -> list[Row]:
    count = min(1000, size.live)
    return [row(size, f"{count:,} blocks of new sizes", "first", busy, count=count)]


def replays(size: Size, traces: dict[str, pathlib.Path]) -> list[Row]:
    return [row(size, f"{name}, {size.calls:,} calls at most", "replay", busy, trace=path,
                calls=size.calls) for name, path in traces.items() for busy in (False, True)]


def parts(size: Size, simulated: bool, traces: dict[str, pathlib.Path]) -> list[Part]:
    every = [
        Part("pairs", "an allocation and its free, by size and threads", pairs(size), 25),
        Part("loop", "allocate 1 MiB, a kernel of 20 µs, free; the kernels alone", loops(size),
             10),
        Part("hand-over", "4 KiB allocated by one thread, freed by another", hand_overs(size), 8),
        Part("thread", "a thread's first pair and its end; a thread alone", threads(size), 4),
        Part("question", "other calls beside the allocator", questions(size), 3),
        Part("replay", "traces of programs, a call", replays(size, traces), 8),
        Part("live", "a pair of a random size among many blocks", live(size), 10),
        Part("random", "random_allocations as in RMM's benchmarks, a call",
             random(size, simulated), 25, repetitions=3, anew=True, one_at_a_time=True,
             reserve_bytes=32 * GIB),
        Part("first", "the first touch: an allocation alone", first(size, False), 16,
             repetitions=3, anew=True),  # to start all alternatives anew takes 40 s
        Part("first-busy", "the same, the device busy", first(size, True), 16,
             repetitions=3, anew=True),
    ]
    return [part for part in every if part.rows]
