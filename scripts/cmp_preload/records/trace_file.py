"""A file of CMP_TRACE; its format is described in shim/record/trace_format.h."""

from __future__ import annotations

import mmap
import operator
import struct

from cmp_preload.console.errors import Failure
from cmp_preload.records import runs
from cmp_preload.records.calls import FIRST_FREE, OUTCOMES, Call, Trace

FORMAT = 3
OLDEST = 1  # 2: no page-locked memory; 1: zeros in place of host, rank and command, too
MAGIC = b"CMPTRACE"
HEADER = struct.Struct("<8sIIIIQQQQ16s64s2048s80s16s1024s")
TEXTS = 6  # of these at its end
CHUNK = struct.Struct("<QI20x")
RECORD = struct.Struct("<QQQQ")
MARK = 30  # the byte of a record with the bit that says that it is of page-locked memory
MARKED = bytes(mark for mark in range(256) if mark >> 5 & 1)
CHUNK_BYTES = 4096
CHUNK_RECORDS = CHUNK_BYTES // RECORD.size - 1
CHUNKS_AT_ONCE = 256


class Recorded(Trace):
    """A file of CMP_TRACE, of a process that runs, has ended or was killed. Failure with one line
    where a record is reached that cannot be."""

    def __init__(self, data, **header) -> None:
        super().__init__(**header)
        self._data = data
        # Where each chunk begins, in the order of their first calls; chunks without calls are the
        # rest of the last step of a process that runs or was killed.
        self._chunks = []
        self._count = self._page_locked = self._end = 0
        for at in range(CHUNK_BYTES, len(data) - CHUNK_BYTES + 1, CHUNK_BYTES):
            thread, count = CHUNK.unpack_from(data, at)
            count = min(count, CHUNK_RECORDS)
            if count != 0:
                first = at + CHUNK.size
                begin = RECORD.unpack_from(data, first)[0]
                last = RECORD.unpack_from(data, first + (count - 1) * RECORD.size)
                self._chunks.append((begin, at, thread, count))
                marks = data[first + MARK : first + count * RECORD.size : RECORD.size]
                self._page_locked += count - len(marks.translate(None, MARKED))
                self._count += count
                self._end = max(self._end, last[0] + _cost(last))
        self._chunks.sort()

    def __iter__(self):
        return self._select(0)

    @property
    def page_locked(self):
        return self._select(1) if self._page_locked else iter(())

    def _select(self, page_locked):
        waiting = []  # what may come after calls of chunks that were not read yet
        for i in range(0, len(self._chunks), CHUNKS_AT_ONCE):
            for _, at, thread, count in self._chunks[i : i + CHUNKS_AT_ONCE]:
                first = at + CHUNK.size
                records = self._data[first : first + count * RECORD.size]
                self._read(records, thread, page_locked, waiting.append)
            waiting.sort(key=operator.itemgetter(0))
            if i + CHUNKS_AT_ONCE < len(self._chunks):
                until = self._chunks[i + CHUNKS_AT_ONCE][0] - self.begin
                ready = _index_of(waiting, until)
                yield from waiting[:ready]
                del waiting[:ready]
        yield from waiting

    def _read(self, records, thread, page_locked, add) -> None:
        begin = self.begin
        for time, pointer, size, rest in RECORD.iter_unpack(records):
            time -= begin
            cost = rest & 0xFFFFFFFFFF
            outcome = rest >> 48 & 31
            if time < 0 or outcome >= len(OUTCOMES):
                raise Failure(f"{self.path}: a record is damaged")
            if rest >> 53 & 1 != page_locked:
                continue
            add(
                Call(
                    time + cost if outcome < FIRST_FREE else time,
                    time,
                    cost,
                    thread,
                    OUTCOMES[outcome],
                    pointer,
                    size & 0xFFFFFFFFFFFF,
                    size >> 48,
                    rest >> 40 & 255,
                    rest >> 54,
                )
            )

    def __len__(self) -> int:
        return self._count - self._page_locked

    @property
    def nanoseconds(self) -> int:
        return self._end - self.begin if self._count else 0


def _cost(record) -> int:
    return record[3] & 0xFFFFFFFFFF


def _index_of(calls, moment) -> int:
    """Of the first call that is not before the moment."""
    low, high = 0, len(calls)
    while low < high:
        middle = (low + high) // 2
        if calls[middle].moment < moment:
            low = middle + 1
        else:
            high = middle
    return low


def is_trace(path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read(path) -> Recorded:
    with open(path, "rb") as file:
        beginning = file.read(HEADER.size)
        if len(beginning) < HEADER.size:
            raise ValueError("the file is cut off")
        header = HEADER.unpack(beginning)
        _, form, *sizes, ended, pid, begin, begin_unix, lost = header[:-TEXTS]
        if not OLDEST <= form <= FORMAT:
            raise ValueError(f"a trace of format {form}; this cmp-preload reads {FORMAT}")
        if sizes != [CHUNK_BYTES, RECORD.size]:
            raise ValueError("the file is damaged")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    version, program, settings, host, rank, command = (
        field.rstrip(b"\0").decode(errors="replace") for field in header[-TEXTS:]
    )
    return Recorded(
        data,
        path=path,
        program=program,
        pid=pid,
        begin=begin,
        begin_unix=begin_unix,
        version=version,
        host=host or None,
        rank=runs.rank_of(rank),
        command=command,
        settings=dict(line.split("=", 1) for line in settings.split("\n") if "=" in line),
        lost=lost,
        ended=bool(ended),
    )


def write(trace, path) -> None:
    """Writes a trace as the shim would have: for cmp-replay, from a CSV."""
    threads = {}
    for one in trace:
        threads.setdefault(one.thread, []).append(one)
    settings = "".join(f"{name}={value}\n" for name, value in trace.settings.items())
    header = HEADER.pack(
        MAGIC,
        FORMAT,
        CHUNK_BYTES,
        RECORD.size,
        trace.ended,
        trace.pid,
        0,
        trace.begin_unix,
        trace.lost,
        trace.version.encode(),
        trace.program.encode(),
        settings.encode(),
        (trace.host or "").encode(),
        ("" if trace.rank is None else str(trace.rank)).encode(),
        trace.command.encode(),
    )
    with open(path, "wb") as file:
        file.write(header.ljust(CHUNK_BYTES, b"\0"))
        for thread, calls in threads.items():
            for first in range(0, len(calls), CHUNK_RECORDS):
                part = calls[first : first + CHUNK_RECORDS]
                chunk = CHUNK.pack(thread, len(part)) + b"".join(map(_record, part))
                file.write(chunk.ljust(CHUNK_BYTES, b"\0"))


def _record(one) -> bytes:
    outcome = OUTCOMES.index(one.outcome)
    return RECORD.pack(
        one.begin,
        one.pointer,
        one.bytes | one.context << 48,
        one.cost | one.device << 40 | outcome << 48 | one.status << 54,
    )
