"""Traces of CMP_TRACE, and the CSV of RMM's logging resource and replay benchmark: both are read and
written here. The format of a trace is described in shim/trace_format.h."""

from __future__ import annotations

import csv
import datetime
import mmap
import operator
import re
import struct
from typing import NamedTuple

from cmp_preload.cli import Failure
from cmp_preload.text import shorten

SCHEMA = 1
MAGIC = b"CMPTRACE"
HEADER = struct.Struct("<8sIIIIQQQQ16s64s2048s")
CHUNK = struct.Struct("<QI20x")
RECORD = struct.Struct("<QQQQ")
CHUNK_BYTES = 4096
CHUNK_RECORDS = CHUNK_BYTES // RECORD.size - 1
CHUNKS_AT_ONCE = 256
OUTCOMES = (
    "thread_cache global_pool refill real failed "
    "pooled waited real_free foreign_free double_free"
).split()
FIRST_FREE = OUTCOMES.index("pooled")
CSV_COLUMNS = ["Thread", "Time", "Action", "Pointer", "Size", "Stream"]
CSV_ACTIONS = {"allocate": "real", "allocate failure": "failed", "free": "real_free"}
TIME_OF_DAY = re.compile(r"(\d{1,3}):(\d{1,2}):(\d{1,2})[.:](\d{1,9})", re.ASCII)


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


def call(begin, cost, thread, outcome, pointer, size, context=0, device=0, status=0) -> Call:
    moment = begin + cost if OUTCOMES.index(outcome) < FIRST_FREE else begin
    return Call(moment, begin, cost, thread, outcome, pointer, size, context, device, status)


class Trace:
    """What the header of a trace says, and its calls in the order of their moments. These are read
    when they are asked for, and never all in memory unless the caller keeps them."""

    def __init__(self, calls=(), **header) -> None:
        self.program, self.pid, self.version, self.settings = "", 0, "", {}
        self.begin_unix, self.lost, self.ended = 0, 0, True
        self.__dict__.update(header)
        # sorted() is stable: a thread's calls keep their order.
        self._calls = sorted(calls, key=operator.attrgetter("moment"))

    def __iter__(self):
        return iter(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def calls(self) -> list[Call]:
        return list(self)

    @property
    def nanoseconds(self) -> int:
        """From the begin of the trace to the end of the last call."""
        return max((one.begin + one.cost for one in self._calls), default=0)


class _Recorded(Trace):
    """A file of CMP_TRACE, of a process that runs, has ended or was killed. Failure with one line
    where a record is reached that cannot be."""

    def __init__(self, data, **header) -> None:
        super().__init__(**header)
        self._data = data
        # Where each chunk begins, in the order of their first calls; chunks without calls are the
        # rest of the last step of a process that runs or was killed.
        self._chunks = []
        self._count = self._end = 0
        for at in range(CHUNK_BYTES, len(data) - CHUNK_BYTES + 1, CHUNK_BYTES):
            thread, count = CHUNK.unpack_from(data, at)
            count = min(count, CHUNK_RECORDS)
            if count != 0:
                first = at + CHUNK.size
                begin = RECORD.unpack_from(data, first)[0]
                last = RECORD.unpack_from(data, first + (count - 1) * RECORD.size)
                self._chunks.append((begin, at, thread, count))
                self._count += count
                self._end = max(self._end, last[0] + _cost(last))
        self._chunks.sort()

    def __iter__(self):
        waiting = []  # what may come after calls of chunks that were not read yet
        for i in range(0, len(self._chunks), CHUNKS_AT_ONCE):
            for _, at, thread, count in self._chunks[i : i + CHUNKS_AT_ONCE]:
                first = at + CHUNK.size
                self._read(self._data[first : first + count * RECORD.size], thread, waiting.append)
            waiting.sort(key=operator.itemgetter(0))
            if i + CHUNKS_AT_ONCE < len(self._chunks):
                until = self._chunks[i + CHUNKS_AT_ONCE][0] - self.begin
                ready = _index_of(waiting, until)
                yield from waiting[:ready]
                del waiting[:ready]
        yield from waiting

    def _read(self, records, thread, add) -> None:
        begin = self.begin
        for time, pointer, size, rest in RECORD.iter_unpack(records):
            time -= begin
            cost = rest & 0xFFFFFFFFFF
            outcome = rest >> 48 & 63
            if time < 0 or outcome >= len(OUTCOMES):
                raise Failure(f"{self.path}: a record is damaged")
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
        return self._count

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


def read(path) -> Trace:
    """The trace in `path`, or a CSV of RMM's. Failure with one line if it holds none."""
    try:
        return _read_recorded(path) if is_trace(path) else _read_csv(path)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    except (ValueError, csv.Error) as error:
        raise Failure(f"{path}: {error}") from None


def _read_recorded(path) -> Trace:
    with open(path, "rb") as file:
        beginning = file.read(HEADER.size)
        if len(beginning) < HEADER.size:
            raise ValueError("the file is cut off")
        _, *form, ended, pid, begin, begin_unix, lost, version, program, settings = HEADER.unpack(
            beginning
        )
        if form != [SCHEMA, CHUNK_BYTES, RECORD.size]:
            raise ValueError("a trace of another version of the pool")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    version, program, settings = (
        field.rstrip(b"\0").decode(errors="replace") for field in (version, program, settings)
    )
    return _Recorded(
        data,
        path=path,
        program=program,
        pid=pid,
        begin=begin,
        begin_unix=begin_unix,
        version=version,
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
        SCHEMA,
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


# ---- RMM's CSV: Thread,Time,Action,Pointer,Size,Stream; a line for each call in the order in which
# they happened; Action is allocate, "allocate failure" or free; Time is the time of the day.


def write_csv(trace, file) -> None:
    """The allocations, and the frees of what they gave, as RMM's logging resource writes them."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    sizes = {}
    for one in trace:
        moment = datetime.datetime.fromtimestamp((trace.begin_unix + one.moment) // 1000 / 1e6)
        row = [one.thread, moment.strftime("%H:%M:%S.%f")]
        if one.outcome == "failed":
            writer.writerow([*row, "allocate failure", "(nil)", one.bytes, 0])
        elif one.allocates:
            sizes[one.pointer] = one.bytes
            writer.writerow([*row, "allocate", hex(one.pointer), one.bytes, 0])
        elif one.outcome != "double_free" and one.pointer in sizes:
            size = sizes.pop(one.pointer)
            writer.writerow([*row, "free", hex(one.pointer), size, 0])


def _time_of_day(text) -> int:
    """Nanoseconds of "HH:MM:SS.ffffff" or "HH:MM:SS:ffffff"; 0 if it is written otherwise."""
    found = TIME_OF_DAY.fullmatch(text)
    if not found:
        return 0
    hours, minutes, seconds, micros = found.groups()
    whole = (int(hours) * 60 + int(minutes)) * 60 + int(seconds)
    return (whole * 10**6 + int(micros.ljust(6, "0")[:6])) * 1000


def _whole(row, column, bits, base=10) -> int:
    """A number that a trace has room for."""
    number = int(row[column], base)
    if not 0 <= number < 1 << bits:
        raise ValueError(f"{column} is out of range")
    return number


def _call_of(row, time) -> Call:
    outcome = CSV_ACTIONS.get(row["Action"])
    if outcome is None:
        raise ValueError(f"unknown action {shorten(repr(row['Action']), 40)}")
    pointer = 0 if row["Pointer"] == "(nil)" else _whole(row, "Pointer", 64, 16)
    status = 2 if outcome == "failed" else 0
    thread, size = _whole(row, "Thread", 64), _whole(row, "Size", 48)
    return call(time, 0, thread, outcome, pointer, size, status=status)


def _read_csv(path) -> Trace:
    """A CSV of RMM's. Its lines are in order; two never get the same moment here."""
    calls = []
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.DictReader(file)
        if not set(CSV_COLUMNS[:-1]) <= set(rows.fieldnames or ()):
            raise ValueError("neither a trace nor a CSV of RMM's")
        first, last = None, -1
        for row in rows:
            if any(row[column] is None for column in CSV_COLUMNS[:-1]):
                raise ValueError(f"line {rows.line_num}: a column is missing")
            time = _time_of_day(row["Time"])
            first = time if first is None else first
            last = max(time - first, last + 1)
            try:
                calls.append(_call_of(row, last))
            except ValueError as error:
                raise ValueError(f"line {rows.line_num}: {error}") from None
    return Trace(calls)
