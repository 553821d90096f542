"""What cmp-preload report says of traces."""

from __future__ import annotations

from typing import NamedTuple

from cmp_preload import trace
from cmp_preload.console import words
from cmp_preload.timeline import OUTCOMES, STEPS, Timeline

ROWS = 12  # of the table over time


class Traced(NamedTuple):
    """One process's trace."""

    file: str
    recorded: trace.Trace
    timeline: Timeline

    def name(self) -> str:
        program = f"{self.recorded.program} {self.recorded.pid}" if self.recorded.pid else "CSV"
        return program + ("" if self.recorded.ended else " (not ended)")

    def summary(self) -> dict:
        """As JSON."""
        return {
            "file": self.file,
            "program": self.recorded.program,
            "pid": self.recorded.pid,
            "version": self.recorded.version,
            "ended": self.recorded.ended,
            "lost": self.recorded.lost,
            "settings": self.recorded.settings,
            "nanoseconds": self.recorded.nanoseconds,
            **self.timeline.summary(),
        }


def read_all(files: list[str], find_library) -> list[Traced]:
    """Traces of processes that may have run at once: their times have one begin."""
    everyone = [(file, trace.read(file)) for file in files]
    begin = min((one.begin_unix for _, one in everyone if one.begin_unix), default=0)
    offsets = [max(0, one.begin_unix - begin) for _, one in everyone]  # a CSV has no begin
    end = max((offset + one.nanoseconds for offset, (_, one) in zip(offsets, everyone)), default=0)
    result = []
    for offset, (file, recorded) in zip(offsets, everyone):
        timeline = Timeline(max(1, end) / STEPS)
        timeline.read(recorded, tier_steps(recorded, find_library), offset)
        result.append(Traced(file, recorded, timeline))
    return result


def tier_steps(recorded: trace.Trace, find_library) -> int:
    """CMP_TIER_STEPS of the process."""
    library = find_library()
    default = next(option for option in library.options() if option.name == "CMP_TIER_STEPS")
    value = recorded.settings.get(default.name, default.default)
    return int(value if library.is_right(default.name, value) else default.default)


def together(traces: list[Traced]) -> Timeline:
    whole = Timeline(traces[0].timeline.step_ns)
    for one in traces:
        whole.add_all(one.timeline)
    return whole


def trace_rows(traces: list[Traced], whole: Timeline) -> list[list[str]]:
    rows = [["trace", "calls", "threads", "lasted", "peak asked for", "in blocks", "at the end"]]
    for one in sorted(traces, key=lambda one: -sum(one.timeline.calls)):
        lasted = words.seconds(one.recorded.nanoseconds / 1e9)
        rows.append([one.name(), *_cells(one.timeline, lasted)])
    if len(traces) > 1:
        lasted = words.seconds(whole.step_ns * STEPS / 1e9)
        rows.append([f"all {len(traces)}", *_cells(whole, lasted)])
    return rows


def _cells(timeline: Timeline, lasted: str) -> list[str]:
    return [
        f"{sum(timeline.calls):,}",
        f"{timeline.threads:,}",
        lasted,
        words.size(timeline.peak),
        words.size(timeline.block_peak),
        words.size(timeline.at_end),
    ]


def time_rows(whole: Timeline) -> list[list[str]]:
    """Memory over time; of each row the most that was live."""
    rows = [["until", "asked for, at most", "in blocks", "calls", "of these real"]]
    width = STEPS // ROWS
    for begin in range(0, STEPS, width):
        part = slice(begin, begin + width)
        rows.append(
            [
                words.seconds(whole.step_ns * part.stop / 1e9),
                words.size(max(whole.live[part])),
                words.size(max(whole.blocks[part])),
                f"{sum(whole.calls[part]):,}",
                f"{sum(whole.real_calls[part]):,}",
            ]
        )
    return rows


def outcome_rows(whole: Timeline) -> list[list[str]]:
    rows = [["outcome", "calls", "time", "p50", "p99", "max"]]
    for name, row in whole.outcomes().items():
        times = [words.seconds(row[key] / 1e9) for key in ("ns", "p50_ns", "p99_ns", "max_ns")]
        timed = row["ns"] != 0  # in a CSV they are not
        rows.append([OUTCOMES[name], f"{row['calls']:,}", *(times if timed else [""] * 4)])
    return rows


def notes(traces: list[Traced]) -> list[str]:
    """What else is worth a line."""
    lost = sum(one.recorded.lost for one in traces)
    found = [f"{words.count(lost, 'call')} found no room in the file"] if lost else []
    for one in traces:
        if one.recorded.settings:
            pairs = " ".join(f"{name}={value}" for name, value in one.recorded.settings.items())
            found.append(f"settings of {one.name()}: {pairs}")
    return found
