"""Traces, and the CSV of RMM's: what cmp-preload report and replay make of them."""

import io
import json
import os

import driver
from cmp_preload import report, trace, traces
from cmp_preload.library import Library

LIBRARY = Library(os.environ["CMP_TEST_LIBRARY"])


def read(path):
    recorded = trace.read(path)
    calls = list(recorded)
    assert len(calls) == len(recorded)
    assert all(isinstance(one, trace.Call) for one in calls)
    found = report.Found([], lambda: LIBRARY)
    found.traces = traces.read_all([path], lambda: LIBRARY)
    found.timeline = traces.together(found.traces)
    report.as_text(found, True)
    json.dumps(found.as_json())
    trace.write_csv(recorded, io.StringIO())
    if not trace.is_trace(path):
        trace.write(recorded, path)
        assert [one[3:] for one in trace.read(path)] == [one[3:] for one in calls]


if __name__ == "__main__":
    driver.main(read)
