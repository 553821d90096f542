"""Traces of CMP_TRACE, and the CSV of RMM's logging resource and replay benchmark: both are read and
written here. The format of a trace is described in shim/trace_format.h."""

from __future__ import annotations

import csv
import datetime
import mmap
import struct
import typing

SCHEMA = 1
MAGIC = b"CMPTRACE"
HEADER = struct.Struct("<8sIIIIQQQQ16s64s2048s")
CHUNK = struct.Struct("<QI20x")
RECORD = struct.Struct("<QQQQ")
CHUNK_BYTES = 4096
OUTCOMES = (
    "thread_cache global_pool refill real failed "
    "pooled waited real_free foreign_free double_free").split()
FIRST_FREE = OUTCOMES.index("pooled")
CSV_COLUMNS = ["Thread", "Time", "Action", "Pointer", "Size", "Stream"]


class TraceError(Exception):
    """A file that is no trace, or one of another version."""


class Call(typing.NamedTuple):
    """One allocation or free. Times are in nanoseconds from the begin of the trace."""

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

    @property
    def moment(self) -> int:
        """When the pointer changed hands: at the end of an allocation, at the begin of a free. In
        this order no pointer is allocated before it was freed."""
        return self.begin + self.cost if self.allocates else self.begin


class Trace:
    """A trace in memory: what the header says, and the calls in the order of their moments."""

    def __init__(self, calls, program="", pid=0, begin_unix=0, version="", settings=None, lost=0,
                 ended=True):
        self.calls = sorted(calls, key=lambda call: call.moment)  # stable: a thread keeps its order
        self.program = program
        self.pid = pid
        self.begin_unix = begin_unix
        self.version = version
        self.settings = settings or {}
        self.lost = lost
        self.ended = ended

    def summary(self) -> dict:
        """Counts and times by outcome, and the peak of what was asked for."""
        outcomes = {}
        live, sizes, peak = 0, {}, 0
        for call in self.calls:
            row = outcomes.setdefault(call.outcome, {"calls": 0, "ns": 0})
            row["calls"] += 1
            row["ns"] += call.cost
            if not call.allocates:
                live -= sizes.pop(call.pointer, 0)
            elif call.pointer:
                sizes[call.pointer] = call.bytes
                live += call.bytes
                peak = max(peak, live)
        return {
            "cmp_trace": SCHEMA, "program": self.program, "pid": self.pid, "version": self.version,
            "ended": self.ended, "lost": self.lost, "settings": self.settings,
            "calls": len(self.calls), "threads": len({call.thread for call in self.calls}),
            "outcomes": {name: outcomes[name] for name in OUTCOMES if name in outcomes},
            "peak_bytes": peak, "live_bytes_at_end": live,
        }


def read(path) -> Trace:
    """The trace in `path`, of a process that runs, has ended or was killed; or a CSV of RMM's."""
    with open(path, "rb") as file:
        beginning = file.read(HEADER.size)
        if not beginning.startswith(MAGIC):
            return read_csv(path)
        if len(beginning) < HEADER.size:
            raise TraceError("the file is cut off")
        (_, schema, chunk_bytes, record_bytes, ended, pid, begin, begin_unix, lost, version,
         program, settings) = HEADER.unpack(beginning)
        if (schema, chunk_bytes, record_bytes) != (SCHEMA, CHUNK_BYTES, RECORD.size):
            raise TraceError("a trace of another version of the pool")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            calls = list(_calls(data, begin))
    text = [bytes.decode(field.rstrip(b"\0"), errors="replace")
            for field in (program, version, settings)]
    settings = dict(line.split("=", 1) for line in text[2].split("\n") if "=" in line)
    return Trace(calls, text[0], pid, begin_unix, text[1], settings, lost, bool(ended))


def _calls(data, begin):
    for at in range(CHUNK_BYTES, len(data) - CHUNK_BYTES + 1, CHUNK_BYTES):
        thread, count = CHUNK.unpack_from(data, at)
        if count == 0:
            continue  # not begun: the rest of the last step of a process that runs or was killed
        first = at + CHUNK.size
        for time, pointer, size, rest in RECORD.iter_unpack(
                data[first:first + count * RECORD.size]):
            yield Call(time - begin, rest & (1 << 40) - 1, thread, OUTCOMES[rest >> 48 & 63],
                       pointer, size & (1 << 48) - 1, size >> 48, rest >> 40 & 255, rest >> 54)


def write(trace, path):
    """Writes a trace as the shim would have: for cmp-replay, from a CSV."""
    threads = {}
    for call in trace.calls:
        threads.setdefault(call.thread, []).append(call)
    settings = "".join(f"{name}={value}\n" for name, value in trace.settings.items())
    header = HEADER.pack(MAGIC, SCHEMA, CHUNK_BYTES, RECORD.size, trace.ended, trace.pid, 0,
                         trace.begin_unix, trace.lost, trace.version.encode(),
                         trace.program.encode(), settings.encode())
    most = CHUNK_BYTES // RECORD.size - 1
    with open(path, "wb") as file:
        file.write(header.ljust(CHUNK_BYTES, b"\0"))
        for thread, calls in threads.items():
            for first in range(0, len(calls), most):
                part = calls[first:first + most]
                chunk = CHUNK.pack(thread, len(part)) + b"".join(
                    RECORD.pack(call.begin, call.pointer, call.bytes | call.context << 48,
                                call.cost | call.device << 40 |
                                OUTCOMES.index(call.outcome) << 48 | call.status << 54)
                    for call in part)
                file.write(chunk.ljust(CHUNK_BYTES, b"\0"))


# ---- RMM's CSV: Thread,Time,Action,Pointer,Size,Stream; a line for each call in the order in which
# they happened; Action is allocate, "allocate failure" or free; Time is the time of the day.


def write_csv(trace, file):
    """The allocations, and the frees of what they gave, as RMM's logging resource writes them."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    sizes = {}
    for call in trace.calls:
        moment = datetime.datetime.fromtimestamp((trace.begin_unix + call.moment) // 1000 / 1e6)
        row = [call.thread, moment.strftime("%H:%M:%S.%f")]
        if call.outcome == "failed":
            writer.writerow([*row, "allocate failure", "(nil)", call.bytes, 0])
        elif call.allocates:
            sizes[call.pointer] = call.bytes
            writer.writerow([*row, "allocate", hex(call.pointer), call.bytes, 0])
        elif call.outcome != "double_free" and call.pointer in sizes:
            size = sizes.pop(call.pointer)
            writer.writerow([*row, "free", hex(call.pointer), size, 0])


def _time_of_day(text):
    """Nanoseconds of "HH:MM:SS.ffffff" or "HH:MM:SS:ffffff"; 0 if it is written otherwise."""
    try:
        hours, minutes, seconds, micros = text.replace(".", ":").split(":")
        whole = (int(hours) * 60 + int(minutes)) * 60 + int(seconds)
        return (whole * 10**6 + int(micros.ljust(6, "0")[:6])) * 1000
    except ValueError:
        return 0


def read_csv(path) -> Trace:
    """A CSV of RMM's. Its lines are in order; two never get the same moment here."""
    calls = []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if not set(CSV_COLUMNS[:-1]) <= set(rows.fieldnames or ()):
                raise TraceError("neither a trace nor a CSV of RMM's")
            first, last = None, -1
            for row in rows:
                time = _time_of_day(row["Time"])
                first = time if first is None else first
                last = max(time - first, last + 1)
                action, size = row["Action"], int(row["Size"])
                pointer = 0 if row["Pointer"] == "(nil)" else int(row["Pointer"], 16)
                outcome = {"allocate": "real", "allocate failure": "failed",
                           "free": "real_free"}.get(action)
                if outcome is None:
                    raise TraceError(f"line {rows.line_num}: unknown action {action!r}")
                calls.append(Call(last, 0, int(row["Thread"]), outcome, pointer, size, 0, 0,
                                  2 if outcome == "failed" else 0))
    except (UnicodeDecodeError, TypeError, ValueError, csv.Error) as error:
        raise TraceError(f"neither a trace nor a CSV of RMM's: {error}") from error
    return Trace(calls)
