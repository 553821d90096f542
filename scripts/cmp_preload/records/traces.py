"""Traces of one or many processes: files of CMP_TRACE, or of RMM's logging resource."""

from __future__ import annotations

import csv
from typing import NamedTuple

from cmp_preload.console.errors import Failure
from cmp_preload.records import rmm_csv, trace_file
from cmp_preload.records.calls import Trace
from cmp_preload.records.timeline import STEPS, Timeline


def read(path) -> Trace:
    """The trace in `path`, or a CSV of RMM's. Failure with one line if it holds none."""
    try:
        return trace_file.read(path) if trace_file.is_trace(path) else rmm_csv.read(path)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    except (ValueError, csv.Error) as error:
        raise Failure(f"{path}: {error}") from None


class Traced(NamedTuple):
    """One process's trace."""

    file: str
    recorded: Trace
    timeline: Timeline

    def name(self) -> str:
        program = f"{self.recorded.program} {self.recorded.pid}" if self.recorded.pid else "CSV"
        return program + ("" if self.recorded.ended else " (not ended)")


def read_all(files: list[str], find_library, pass_over) -> list[Traced]:
    """Traces of processes that may have run at once: their times have one begin. What cannot be read
    is left out, if `pass_over(file, failure)` returns."""
    everyone = []
    library = find_library() if files else None  # if it is missing, no file is at fault
    for file in files:
        try:
            everyone.append((file, read(file)))
        except Failure as failure:
            pass_over(file, failure)
    begin = min((one.begin_unix for _, one in everyone if one.begin_unix), default=0)
    offsets = [max(0, one.begin_unix - begin) for _, one in everyone]  # a CSV has no begin
    end = max((offset + one.nanoseconds for offset, (_, one) in zip(offsets, everyone)), default=0)
    result = []
    for offset, (file, recorded) in zip(offsets, everyone):
        timeline = Timeline(max(1, end) / STEPS)
        try:
            timeline.read(recorded, tier_steps(recorded, library), offset)
        except Failure as failure:
            pass_over(file, failure)
            others = [other for other, _ in everyone if other != file]
            return read_all(others, find_library, pass_over)  # its times were among theirs
        result.append(Traced(file, recorded, timeline))
    return result


def tier_steps(recorded: Trace, library) -> int:
    """CMP_TIER_STEPS of the process."""
    default = next(option for option in library.options() if option.name == "CMP_TIER_STEPS")
    value = recorded.settings.get(default.name, default.default)
    return int(value if library.is_right(default.name, value) else default.default)


def together(traces: list[Traced]) -> Timeline:
    whole = Timeline(traces[0].timeline.step_ns)
    for one in traces:
        whole.add_all(one.timeline)
    # A CSV has no begin, and clocks of several hosts differ: their peaks may have been at once.
    if any(one.recorded.begin_unix == 0 for one in traces) or len({one.recorded.host for one in traces}) > 1:
        whole.peak = sum(one.timeline.peak for one in traces)
        whole.block_peak = sum(one.timeline.block_peak for one in traces)
    return whole
