"""The CSV of RMM's logging resource and replay benchmark: a line for each call, in the order in which
they happened; Action is allocate, "allocate failure" or free; Time is the time of the day."""

from __future__ import annotations

import csv
import datetime

from cmp_preload.records.calls import Call, Trace

COLUMNS = ["Thread", "Time", "Action", "Pointer", "Size", "Stream"]


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
    try:
        hours, minutes, seconds, micros = text.replace(".", ":").split(":")
        whole = (int(hours) * 60 + int(minutes)) * 60 + int(seconds)
        return (whole * 10**6 + int(micros.ljust(6, "0")[:6])) * 1000
    except ValueError:
        return 0


def read(path) -> Trace:
    """A CSV of RMM's. Its lines are in order; two never get the same moment here."""
    calls = []
    actions = {"allocate": "real", "allocate failure": "failed", "free": "real_free"}
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.DictReader(file)
        if not set(COLUMNS[:-1]) <= set(rows.fieldnames or ()):
            raise ValueError("neither a trace nor a CSV of RMM's")
        first, last = None, -1
        for row in rows:
            time = _time_of_day(row["Time"])
            first = time if first is None else first
            last = max(time - first, last + 1)
            outcome = actions.get(row["Action"])
            if outcome is None:
                raise ValueError(f"line {rows.line_num}: unknown action {row['Action']!r}")
            pointer = 0 if row["Pointer"] == "(nil)" else int(row["Pointer"], 16)
            status = 2 if outcome == "failed" else 0
            thread, size = int(row["Thread"]), int(row["Size"])
            calls.append(Call.of(last, 0, thread, outcome, pointer, size, status=status))
    return Trace(calls)
