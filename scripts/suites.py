"""What scripts/test does once everything is installed: suites.py CUDA_INCLUDE OLD_CUDA_INCLUDE
SUITE...

Two lanes: the one builds suite after suite, the other tests what is built, so that no processor
waits for the last test or the last link of a suite.
"""

from __future__ import annotations

import compileall
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

JOBS = str(os.cpu_count())
TESTS_AT_ONCE = str((os.cpu_count() or 1) + 2)  # some of them sleep
EVERY_S = 10  # between two lines of progress, where they do not overwrite each other
STEP_OF = re.compile(r"^\[(\d+)/(\d+)\] |^ *(\d+)/(\d+) Test +#\d+: (\S+) \.*(.*)")
NO_NEWS = re.compile(r"^ +Start |^ *\d+/\d+ Test +#\d+: .* Passed |^Internal ctest|^Test project")
FIGURES = re.compile(r"^[A-Za-z].*real calls [0-9]+ and|own cache: ")  # of the tests on a GPU


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


class Step:
    """A command of a suite. What it writes goes to `log`; `word` says what has been done."""

    def __init__(self, word: str, command: list[str], log: str) -> None:
        self.word = word
        self.command = command
        self.log = log


class Suite:
    def __init__(self, name: str, builds: list[Step], checks: list[Step]) -> None:
        self.name = name
        self.builds = builds
        self.checks = checks
        self.built = threading.Event()
        self.verdict = "not run"
        self.notes: list[str] = []
        self.seconds = 0.0


def suite_of(name: str, include: str, old_include: str) -> Suite:
    def configured(folder: str, kind: str, *options: str, headers: str = include) -> Step:
        command = ["cmake", "-S", ".", "-B", folder, "-G", "Ninja", f"-DCMAKE_BUILD_TYPE={kind}"]
        command += ["-DCMP_TESTS=ON", "-DCMP_UNIT_TESTS=ON", f"-DCMP_CUDA_INCLUDE={headers}"]
        return Step("configured", [*command, *options], f"{folder}/configure.log")

    def built(folder: str) -> Step:
        return Step("built", ["cmake", "--build", folder, "-j", JOBS], f"{folder}/build.log")

    def tested(folder: str) -> Step:
        command = ["ctest", "--test-dir", folder, "--output-on-failure", "-j", TESTS_AT_ONCE]
        return Step("tested", [*command, "--timeout", "300"], f"{folder}/tests.log")

    def script(words: list[str], log: str) -> Step:
        return Step(words[0], words, log)

    def sanitized(sanitizers: str, headers: str) -> list[Step]:
        # The compiler takes twice as long over optimised sanitized code; the tests take longer without
        # where they are of threads alone.
        optimised = "-O1" if sanitizers == "thread" else "-O0"
        flags = f"-DCMAKE_CXX_FLAGS_RELWITHDEBINFO={optimised} -g1"
        programs = f"-DCMP_PROGRAMS_OF={os.path.abspath('build')}"  # what is not delivered
        options = (flags, f"-DCMP_SANITIZE={sanitizers}", programs)
        folder = f"build-{name}"
        sanitizes = configured(folder, "RelWithDebInfo", *options, headers=headers)
        return [release, built("build"), sanitizes, built(folder)]

    release = configured("build", "Release")
    if name == "style":
        return Suite(name, [], [script(["scripts/style"], "build/style/log")])
    if name == "release":
        return Suite(name, [release, built("build")], [tested("build")])
    if name == "install":
        checks = [script([f"scripts/test-{what}", "build"], f"build/{what}.log")
                  for what in ("install", "packages")]
        return Suite(name, [release, built("build")], checks)
    if name == "aarch64":
        # Mostly compiled, on one processor: beside the tests of others.
        return Suite(name, [script(["scripts/test-aarch64", include], "build-aarch64/log")], [])
    if name == "asan":
        return Suite(name, sanitized("address,undefined", old_include), [tested("build-asan")])
    if name == "tsan":
        return Suite(name, sanitized("thread", include), [tested("build-tsan")])
    # What names the headers declare is the question, not what code becomes of it.
    none = ("-DCMP_UNIT_TESTS=OFF", "-DCMP_CUDART=OFF", "-DCMP_CUDART_STATIC=OFF")
    folder = "build-cuda12"
    made = configured(folder, "Debug", *none, headers=old_include)  # of a debug build: each file alone
    compiled = script(["scripts/check-syntax", folder], f"{folder}/syntax.log")
    return Suite(name, [made, compiled], [])


class Progress:
    """What both lanes are at, in one line: every second on a terminal, else now and then."""

    def __init__(self) -> None:
        self.begin = time.monotonic()
        self._lock = threading.Lock()
        self._lanes: dict[str, tuple[str, float]] = {}
        plain = os.environ.get("TERM", "dumb") == "dumb" or os.environ.get("NO_COLOR")
        self._is_terminal = sys.stdout.isatty() and not plain
        threading.Thread(target=self._tell, daemon=True).start()

    def at(self, lane: str, what: str, since: float) -> None:
        """`what` is under way, or with an empty one nothing."""
        with self._lock:
            self._lanes[lane] = what, since

    def say(self, text: str) -> None:
        with self._lock:
            self._print(text, "\n")

    def _print(self, text: str, end: str) -> None:
        clear = "\r\033[K" if self._is_terminal else ""
        print(f"{clear}{clock(time.monotonic() - self.begin)}  {text}", end=end, flush=True)

    def _tell(self) -> None:
        while True:
            time.sleep(1 if self._is_terminal else EVERY_S)
            with self._lock:
                now = time.monotonic()
                lanes = [f"{what} in {clock(now - at)}" for what, at in self._lanes.values() if what]
                if lanes:
                    self._print("; ".join(lanes), "" if self._is_terminal else "\n")


class Runner:
    def __init__(self, suites: list[Suite]) -> None:
        self.suites = suites
        self.progress = Progress()
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.RLock()
        self._built: list[list[str]] = []
        self.stopped = False

    def run(self) -> None:
        builder = threading.Thread(target=self._build_all, daemon=True)
        builder.start()
        for suite in self.suites:
            suite.built.wait()
            if suite.verdict == "not run":
                self._do(suite, "test", suite.checks)
                if suite.verdict == "not run" and not self.stopped:
                    self._end(suite, "passed")
        builder.join()

    def _build_all(self) -> None:
        for suite in self.suites:
            # Not again what another suite has built: a check may be using it.
            steps = [step for step in suite.builds if step.command not in self._built]
            try:
                self._do(suite, "build", steps)
                if suite.verdict == "not run":
                    self._built += [step.command for step in steps]
            finally:  # or the other lane would wait for ever
                suite.built.set()

    def _do(self, suite: Suite, lane: str, steps: list[Step]) -> None:
        begin = time.monotonic()
        for step in steps:
            if suite.verdict == "not run" and not self.stopped and not self._step(suite, lane, step):
                if not self.stopped:
                    self._end(suite, "FAILED")
        suite.seconds += time.monotonic() - begin
        self.progress.at(lane, "", begin)

    def _end(self, suite: Suite, verdict: str) -> None:
        suite.verdict = verdict
        self.progress.say(f"{suite.name}: {verdict}" + "".join(f"; {n}" for n in suite.notes))

    def _step(self, suite: Suite, lane: str, step: Step) -> bool:
        try:
            return self._run_step(suite, lane, step)
        except OSError as error:
            self.progress.say(f"{suite.name}: {shlex.join(step.command)}: {error}")
            return False

    def _run_step(self, suite: Suite, lane: str, step: Step) -> bool:
        os.makedirs(os.path.dirname(step.log), exist_ok=True)
        begin = time.monotonic()
        failed: list[str] = []
        done, skipped = 0, 0
        with open(step.log, "w", encoding="utf-8") as log, subprocess.Popen(
            step.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            with self._lock:
                self._running.add(process)
            if self.stopped:  # by a signal that did not see it
                self._kill(process)
            self.progress.at(lane, f"{suite.name}: {step.word} nothing yet", begin)
            for line in process.stdout:
                log.write(line)
                found = STEP_OF.match(line)
                if not found:
                    continue
                done = int(found[1] or found[3])
                count = f"{done} of {found[2] or found[4]}"
                self.progress.at(lane, f"{suite.name}: {step.word} {count}", begin)
                skipped += "Skipped" in (found[6] or "")
                if found[5] and not re.search("Passed|Skipped", found[6]):
                    failed.append(found[5])
                    self.progress.say(f"{suite.name}: FAILED {found[5]} {found[6].strip('* ')}")
        with self._lock:
            self._running.discard(process)
        if step.word == "tested" and done:
            suite.notes.append(
                f"{done - skipped - len(failed)} of {done} tests passed"
                + (f", {skipped} skipped" if skipped else "")
                + "".join(f", {name} failed" for name in failed)
            )
        if process.returncode != 0 and not self.stopped:
            again = shlex.join(step.command)
            self.progress.say(f"{suite.name}: {again} ended with {process.returncode}; its log:")
            print(excerpt(step), flush=True)
        elif step.word.startswith("scripts/"):
            print(excerpt(step), flush=True)
        return process.returncode == 0

    def _kill(self, process: subprocess.Popen) -> None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def stop(self, *_) -> None:
        """Called by a signal, at any place of the main thread: it waits for nothing."""
        self.stopped = True
        with self._lock:
            for process in list(self._running):
                self._kill(process)
        for suite in self.suites:
            suite.built.set()


def excerpt(step: Step) -> str:
    """Of a log, what says why: failed tests with their output, errors, the end."""
    with open(step.log, encoding="utf-8") as file:
        lines = file.read().splitlines()
    if step.word == "tested":
        return "\n".join(line for line in lines if line and not NO_NEWS.match(line))
    if step.word == "built":
        wrong = [i for i, line in enumerate(lines) if re.search("error|FAILED", line)]
        lines = [lines[i] for i in sorted({j for i in wrong for j in range(i, i + 9)}) if i < len(lines)]
        return "\n".join(lines[:60])
    return "\n".join(lines[-30:])


def print_figures() -> None:
    """Of the tests on a GPU."""
    try:
        with open("build/Testing/Temporary/LastTest.log", encoding="utf-8", errors="replace") as file:
            print("".join(line for line in file if FIGURES.search(line)), end="")
    except OSError:
        pass


def print_verdict(suites: list[Suite], progress: Progress) -> bool:
    print("\nsuite      verdict    time")
    for suite in suites:
        took = clock(suite.seconds) if suite.seconds else ""
        print(f"{suite.name:10} {suite.verdict:8} {took:>6}  {'; '.join(suite.notes)}".rstrip())
    counts = [
        f"{sum(suite.verdict == verdict for suite in suites)} {verdict.lower()}"
        for verdict in ("passed", "FAILED", "not run")
        if any(suite.verdict == verdict for suite in suites)
    ]
    good = all(suite.verdict == "passed" for suite in suites)
    took = clock(time.monotonic() - progress.begin)
    print(f"verdict: {'passed' if good else 'FAILED'}: {', '.join(counts)}, in {took}", flush=True)
    return good


def is_script(program: str) -> bool:
    with open(program, "rb") as file:
        return file.read(2) == b"#!"


def main(arguments: list[str]) -> int:
    include, old_include, *names = arguments
    suites = [suite_of(name, include, old_include) for name in dict.fromkeys(names)]
    runner = Runner(suites)
    # Once: cmp-preload writes no bytecode, and it is started some thousand times.
    for folder in ("scripts/cmp_preload", "tests"):
        compileall.compile_dir(folder, quiet=1)

    if is_script(shutil.which("python3") or sys.executable):  # of a launcher, as pyenv's
        os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, runner.stop)
    try:
        runner.run()
    except Exception as error:  # whatever it is, there is a verdict
        runner.stop()
        print(repr(error))
    if runner.stopped:
        print("\ninterrupted")
    if "release" in names:
        print_figures()
    good = print_verdict(suites, runner.progress)
    return 130 if runner.stopped else 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
