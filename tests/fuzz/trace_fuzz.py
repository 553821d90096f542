"""Traces, and the CSV of RMM's: what cmp-preload report and replay make of them."""

import io
import os

import driver
from cmp_preload.pool.library import Library
from cmp_preload.records import rmm_csv, trace_file, traces
from cmp_preload.records.calls import Call
from cmp_preload.records.collection import Collection
from cmp_preload.reporters import json, text

LIBRARY = Library(os.environ["CMP_TEST_LIBRARY"])


def refuse(_, failure):
    raise failure


def read(path):
    recorded = traces.read(path)
    calls = list(recorded)
    assert len(calls) == len(recorded)
    assert all(isinstance(one, Call) for one in calls)
    found = Collection([], lambda: LIBRARY)
    found.traces = traces.read_all([path], lambda: LIBRARY, refuse)
    found.timeline = traces.together(found.traces)
    text.report(found, True)
    json.report(found)
    rmm_csv.write(recorded, io.StringIO())
    if not trace_file.is_trace(path):
        trace_file.write(recorded, path)
        assert [one[3:] for one in traces.read(path)] == [one[3:] for one in calls]


if __name__ == "__main__":
    driver.main(read)
