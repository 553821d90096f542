"""All that some files and folders hold: statistics and traces of one or many processes."""

from __future__ import annotations

import os

from cmp_preload.console.errors import Failure, warn
from cmp_preload.records import counters, statistics, trace_file, traces


class Collection:
    """What is in the files, of one or many processes."""

    def __init__(self, paths: list[str], find_library) -> None:
        files = _each_once([file for path in paths for file in files_of(path)])
        named = {os.path.realpath(path) for path in paths}

        missing = []

        def needed():
            try:
                return find_library()
            except Failure as failure:
                missing.append(failure)
                raise

        def pass_over(file: str, failure: Failure) -> None:
            if len(files) == 1 or os.path.realpath(file) in named or failure in missing:
                raise failure  # without the library it is no fault of the file
            warn(f"{failure}; passed over")  # one rank must not cost all the others

        recorded = [file for file in files if is_recorded(file)]
        self.everyone = []
        for file in files:
            if file in recorded:
                continue
            try:
                if os.path.realpath(file) not in named and not os.path.isfile(file):
                    raise Failure(f"{file}: not a file")  # of a FIFO, reading might never end
                self.everyone.append({"file": file, **statistics.read(file, needed)})
            except Failure as failure:
                pass_over(file, failure)
        self.traces = traces.read_all(recorded, needed, pass_over)
        if files and not self.everyone and not self.traces:
            raise Failure("no file of these can be read")
        self.processes = [one for one in self.everyone if one["reached"]]
        self.unreached = [one for one in self.everyone if not one["reached"]]
        self.together = counters.add_up(self.everyone)
        self.timeline = traces.together(self.traces) if self.traces else None


def _each_once(files: list[str]) -> list[str]:
    """One that is named twice, as itself and by its folder, counts once."""
    found: dict[str, str] = {}
    for file in files:
        found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def files_of(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    try:
        known = statistics.files_in(path)
        others = (os.path.join(path, name) for name in sorted(os.listdir(path)))
        found = known + [file for file in others if file not in known and is_recorded(file)]
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    if not found:
        raise Failure(f"{path}: no statistics files (*.json, *.live) and no traces are in it")
    return found


def is_recorded(path: str) -> bool:
    """A trace, or a CSV."""
    try:
        return os.path.isfile(path) and (path.endswith(".csv") or trace_file.is_trace(path))
    except OSError:
        return False  # reading it will tell
