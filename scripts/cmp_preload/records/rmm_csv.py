"""The CSV of RMM's logging resource and replay benchmark: a line for each call, in the order in which
they happened; Action is allocate, "allocate failure" or free; Time is the time of the day."""

from __future__ import annotations

import csv
import datetime
import re

from cmp_preload.console import words
from cmp_preload.records.calls import Call, Trace

COLUMNS = ["Thread", "Time", "Action", "Pointer", "Size", "Stream"]
ACTIONS = {"allocate": "real", "allocate failure": "failed", "free": "real_free"}
TIME_OF_DAY = re.compile(r"(\d{1,3}):(\d{1,2}):(\d{1,2})[.:](\d{1,9})", re.ASCII)


def write(trace, file) -> None:
    """The allocations, and the frees of what they gave, as RMM's logging resource writes them."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
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
    try:
        number = int(row[column], base)
    except ValueError:
        raise ValueError(f"{column} is no number") from None
    if not 0 <= number < 1 << bits:
        raise ValueError(f"{column} is out of range")
    return number


def _call_of(row, time) -> Call:
    outcome = ACTIONS.get(row["Action"])
    if outcome is None:
        raise ValueError(f"unknown action {words.shorten(repr(row['Action']), 40)}")
    pointer = 0 if row["Pointer"] == "(nil)" else _whole(row, "Pointer", 64, 16)
    status = 2 if outcome == "failed" else 0
    thread, size = _whole(row, "Thread", 64), _whole(row, "Size", 48)
    return Call.of(time, 0, thread, outcome, pointer, size, status=status)


def read(path) -> Trace:
    """A CSV of RMM's. Its lines are in order; two never get the same moment here."""
    calls = []
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.DictReader(file)
        if not set(COLUMNS[:-1]) <= set(rows.fieldnames or ()):
            raise ValueError("neither a trace nor a CSV of RMM's")
        first, last = None, -1
        for row in rows:
            if any(row[column] is None for column in COLUMNS[:-1]):
                raise ValueError(f"line {rows.line_num}: a column is missing")
            time = _time_of_day(row["Time"])
            first = time if first is None else first
            last = max(time - first, last + 1)
            try:
                calls.append(_call_of(row, last))
            except ValueError as error:
                raise ValueError(f"line {rows.line_num}: {error}") from None
    return Trace(calls)
