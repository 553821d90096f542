"""One run of a program for a trial: what it wrote, how it ended, how long it took."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time

from cmp_preload.console import words
from cmp_preload.console.errors import Failure, Interrupted, cannot_run, warn
from cmp_preload.records import counters, statistics

STRAGGLERS_S = 3  # what may outlive the program and hold its output open
COMPLAINT = re.compile(r"cmp: (unknown option CMP_|CMP_\w+=.* is not understood)")


class Run:
    """`outputs`: name to bytes, for stdout, stderr and the files that it wrote."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.code = 0
        self.over_limit = False
        self.outputs: dict[str, bytes] = {}
        self.statistics: list[dict] = []

    @property
    def counters(self) -> dict:
        """What its processes counted, together."""
        return counters.add_up(self.statistics)

    def allocation_s(self) -> float | None:
        """Inside real calls and waits, the sum over all threads; None: nothing was counted."""
        process = self.counters["process"]
        return counters.allocation_ns(process) / 1e9 if process else None

    def ending(self) -> str:
        """How it ended, in words."""
        if self.over_limit:
            return "did not end in time"
        if self.code < 0:
            try:
                return f"was ended by {signal.Signals(-self.code).name}"
            except ValueError:
                return f"was ended by signal {-self.code}"
        return f"exit code {self.code}"

    def last_lines(self, count: int) -> list[str]:
        """Of what it wrote on stderr."""
        return self.outputs["stderr"].decode(errors="replace").strip().splitlines()[-count:]

    def failure(self) -> str:
        """How it ended, and its last words."""
        return ": ".join([self.ending(), *(words.shorten(line, 80) for line in self.last_lines(1))])


class Interruptions:
    """SIGINT, SIGTERM and SIGHUP raise Interrupted, but not while they are held."""

    def __init__(self) -> None:
        self._held = False
        self._came: int | None = None  # the first that came
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _) -> None:
        if self._came is None:
            self._came = number
        if not self._held:
            raise Interrupted(number)

    def hold(self) -> None:
        self._held = True

    def release(self) -> None:
        self._held = False
        if self._came is not None:
            raise Interrupted(self._came)


class Measurer:
    """Runs one command again and again, in a process group of its own."""

    def __init__(
        self, command: list[str], stdin: str | None, files: list[str], tee: bool, find_library
    ) -> None:
        self.find_library = find_library
        self.interruptions = Interruptions()
        self.command = command
        self.stdin = stdin or os.devnull
        self.files = files
        self.tee = tee
        self._complaints: set[str] = set()  # of settings, that were passed on

    def run(self, environment: dict[str, str], limit_s: float | None, reports: str | None) -> Run:
        """`reports`: the folder where the pool leaves statistics."""
        result = Run()
        # What an earlier run wrote is not this one's.
        before = {path: self._stamp(path) for path in self.files}
        with open(self.stdin, "rb") as stdin:
            self.interruptions.hold()  # or a process could start that nobody knows of
            begin = time.perf_counter()
            try:
                process = subprocess.Popen(
                    self.command,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise cannot_run(self.command[0], error) from None
        readers = {
            name: _Reader(stream, self.tee)
            for name, stream in (("stdout", process.stdout), ("stderr", process.stderr))
        }

        def over_limit() -> None:
            result.over_limit = True
            _end_group(process.pid, signal.SIGKILL)

        timer = threading.Timer(limit_s, over_limit) if limit_s else None
        if timer:
            timer.daemon = True
            timer.start()
        try:
            self.interruptions.release()
            # A wait with a time limit would poll, and round the time up.
            result.code = process.wait()
            result.seconds = time.perf_counter() - begin
            if timer:
                timer.cancel()
            self._end_stragglers(process.pid, readers)
        except BaseException:  # Ctrl-C: what was started ends too
            self.interruptions.hold()
            if timer:
                timer.cancel()
            _end_group(process.pid, signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                pass
            _end_group(process.pid, signal.SIGKILL)
            process.wait()
            raise
        result.outputs = {name: reader.data() for name, reader in readers.items()}
        for path in self.files:
            result.outputs[path] = self._read(path) if self._stamp(path) != before[path] else b""
        if reports is not None:
            result.statistics = self._statistics_in(reports)
        self._pass_on_complaints(result.outputs["stderr"].decode(errors="replace"))
        return result

    def _pass_on_complaints(self, said: str) -> None:
        """A setting of the caller's that the pool does not understand was not tried: said once."""
        for line in said.splitlines():
            if COMPLAINT.match(line) and line not in self._complaints:
                self._complaints.add(line)
                warn(line.removeprefix("cmp: "))

    def _statistics_in(self, folder: str) -> list[dict]:
        found = []
        try:
            for path in statistics.files_in(folder):
                found.append(statistics.read(path, self.find_library))
        except (OSError, Failure) as error:
            warn(f"statistics are missing: {error}")
        return found

    def _end_stragglers(self, group: int, readers: dict) -> None:
        """Processes that the program left behind would disturb the next run."""
        end = time.monotonic() + STRAGGLERS_S
        for reader in readers.values():
            reader.thread.join(max(0.0, end - time.monotonic()))
        if any(reader.thread.is_alive() for reader in readers.values()):
            warn(f"{self.command[0]} left processes behind; they are ended")
            _end_group(group, signal.SIGKILL)
            for reader in readers.values():
                reader.thread.join(1)

    @staticmethod
    def _stamp(path: str):
        try:
            found = os.stat(path)
            return found.st_mtime_ns, found.st_ino, found.st_size
        except OSError:
            return None

    @staticmethod
    def _read(path: str) -> bytes:
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise Failure(f"{path}: {error.strerror}") from None


def _end_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass


class _Reader:
    def __init__(self, stream, tee: bool) -> None:
        self._stream = stream
        self._tee = tee
        self._chunks: list[bytes] = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        while True:
            chunk = os.read(self._stream.fileno(), 1 << 16)
            if not chunk:
                return
            self._chunks.append(chunk)
            if self._tee:
                sys.stderr.buffer.write(chunk)
                sys.stderr.buffer.flush()

    def data(self) -> bytes:
        if not self.thread.is_alive():
            self._stream.close()
        return b"".join(self._chunks)
