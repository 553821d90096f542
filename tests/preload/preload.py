"""Starts programs without and with the preload, for the tests of this folder.

Paths come from the environment that CMake sets. By hand:
    ctest -R preload.errors --output-on-failure
"""

import collections
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import tempfile
import unittest


def _path(name):
    value = os.environ.get(name)
    if not value:
        raise SystemExit(f"{name} is not set: run the tests with ctest")
    return pathlib.Path(value)


BUILD = _path("CMP_TEST_BUILD")
SOURCE = _path("CMP_TEST_SOURCE")
PRELOAD = _path("CMP_TEST_PRELOAD")
LIBRARY = _path("CMP_TEST_LIBRARY")
SIM = _path("CMP_TEST_SIM")
PROGRAMS = _path("CMP_TEST_PROGRAMS")
# With a clock that stands still while the program does anything but LetTimePass.
PATIENT = [PROGRAMS / "patient_clock.so", PRELOAD]
SANITIZE = os.environ.get("CMP_TEST_SANITIZE", "")
# Of a test whose program has one thread.
ONE_THREAD = unittest.skipIf("thread" in SANITIZE, "ThreadSanitizer sees nothing in one thread")
# What must be loaded before a library that was built with a sanitizer.
# The whole suite may be run under any CMP_FREE_SYNC. What the program sees is the same, but under all
# but `wait` it depends on how far the device has come how much is served.
MODE = os.environ.get("CMP_TEST_MODE", "wait")
WAIT = {"CMP_FREE_SYNC": "wait"}
PRELOAD_FIRST = os.environ.get("CMP_TEST_PRELOAD_FIRST", "")

# A driver from before 12.5: without context events.
OLD_DRIVER = {
    "LD_LIBRARY_PATH": str(BUILD / "sim-old"),
    "CMPSIM_DRIVER_VERSION": "12040",
    "CMPSIM_CONTEXT_EVENTS": "0",
}

TIME_LIMIT_S = int(os.environ.get("CMP_TEST_LIMIT_S", "60"))


# How to see the latest runs again: the first thing that a failure says.
_latest = collections.deque(maxlen=2)


def again(words, env):
    """What to type for the same run: settings, seeds, program, arguments."""
    settings = [
        f"{name}={value}"
        for name, value in env.items()
        if name.startswith(("CMP_", "CMPSIM_", "LD_", "ASAN_", "TSAN_", "CARELESS"))
        and name != "CMP_STATS"
    ]
    return shlex.join(["env", *settings, *words])


class Result:
    """What a process did: code (negative: the signal), out, err, stats (parsed JSON or None)."""

    def __init__(self, code, out, err, stats):
        self.code = code
        self.out = out
        self.err = err
        self.stats = stats

    @property
    def results(self):
        """stdout without the notes."""
        return "".join(l for l in self.out.splitlines(True) if not l.startswith("# "))

    @property
    def notes(self):
        """The notes, '# NAME: VALUE' or '# NAME VALUE ...', as a dictionary of strings."""
        found = {}
        for line in self.out.splitlines():
            if line.startswith("# "):
                name, _, value = line[2:].partition(":" if ":" in line else " ")
                found[name.strip()] = value.strip()
        return found

    @property
    def totals(self):
        return self.stats["totals"]

    @property
    def process(self):
        return self.stats["process"]

    @property
    def hits(self):
        return self.totals["thread_cache_hits"] + self.totals["global_pool_hits"]

    def __repr__(self):
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def environment(preload=True, env=None):
    """The environment of a program: nothing of ours but what `env` says, and which rules are off."""
    result = {
        name: value
        for name, value in os.environ.items()
        if name == "CMP_TEST_RULES_OFF" or not name.startswith(("CMP_", "CMPSIM_", "LD_"))
    }
    if "address" in SANITIZE:
        result.setdefault("ASAN_OPTIONS", "detect_leaks=0:verify_asan_link_order=0")
    if "thread" in SANITIZE:
        # Beside another thread (CMP_DECAY's) an exit would take a second.
        options = "die_after_fork=0:halt_on_error=1:atexit_sleep_ms=0"
        result.setdefault("TSAN_OPTIONS", options)
    result["LD_LIBRARY_PATH"] = str(SIM)
    libraries = [PRELOAD_FIRST] if PRELOAD_FIRST else []
    if preload is True:
        libraries.append(str(PRELOAD))
    elif preload:
        libraries += [str(library) for library in preload]
    else:
        libraries = []
    if libraries:
        result["LD_PRELOAD"] = " ".join(libraries)
    if MODE != "auto" and preload:  # which is the default
        result["CMP_FREE_SYNC"] = MODE
    for name, value in (env or {}).items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = str(value)
    return result


def program_path(program):
    """A program of tests/programs by its name; anything with a slash is taken as it is."""
    return str(program) if "/" in str(program) else str(PROGRAMS / program)


def run(program, args=(), preload=True, env=None, stats=True, cwd=None, limit_s=None):
    """Runs a program to its end. preload: True, False, or the libraries to preload instead.

    With the preload, and `stats`, its report goes to a file and is parsed, unless `env` says
    otherwise.
    """
    command = [program_path(program), *map(str, args)]
    with tempfile.TemporaryDirectory(prefix="cmp-test-") as folder:
        report = pathlib.Path(folder) / "stats.json"
        settings = dict(env or {})
        if preload and stats:
            settings.setdefault("CMP_STATS", str(report))
        its_environment = environment(preload, settings)
        _latest.append(again(command, its_environment))
        try:
            finished = subprocess.run(
                command,
                env=its_environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=limit_s or TIME_LIMIT_S,
                cwd=cwd,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            said = (error.stdout or b"") + (error.stderr or b"")
            raise AssertionError(
                f"no end within {error.timeout} s: {said.decode(errors='replace')}\n"
                f"again: {_latest[-1]}"
            ) from None
        parsed = json.loads(report.read_text()) if report.exists() else None
        left = sorted(path.name for path in pathlib.Path(folder).iterdir())
        unfinished = {"stats.json.live", "stats.json.new"}.intersection(left)
        if finished.returncode == 0 and unfinished:
            raise AssertionError(f"{command}: files left beside the report: {left}")
    return Result(
        finished.returncode,
        finished.stdout.decode(errors="replace"),
        finished.stderr.decode(errors="replace"),
        parsed,
    )


def start(program, args=(), preload=True, env=None, **more):
    """Starts a program that the test ends itself."""
    command = [program_path(program), *map(str, args)]
    its_environment = environment(preload, env)
    _latest.append(again(command, its_environment))
    return subprocess.Popen(
        command,
        env=its_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **more,
    )


class TestCase(unittest.TestCase):
    """Assertions that several subjects need."""

    maxDiff = None

    def run(self, result=None):
        """A hang is a failure, not a stuck machine; of one test, however many others there are."""
        signal.alarm(280)
        return super().run(result)

    def _formatMessage(self, msg, standardMsg):
        """Every failure names the programs that it is about, and their seeds."""
        runs = "".join(f"\nagain: {run_again}" for run_again in _latest)
        return super()._formatMessage(msg, standardMsg) + runs

    def assert_ok(self, result, code=0):
        self.assertEqual(result.code, code, repr(result))

    def run_both(self, program, args=(), env=None, code=0, limit_s=None, preload=True):
        """Runs without and with the preload: same code, same results, nothing on stderr."""
        without = run(program, args, preload=False, env=env, limit_s=limit_s)
        within = run(program, args, preload=preload, env=env, limit_s=limit_s)
        self.assert_ok(without, code)
        self.assertEqual(without.results, within.results, within.err)
        self.assertEqual(without.code, within.code, repr(within))
        self.assertEqual(without.err, within.err)
        return without, within

    def assert_served(self, result, at_least=1):
        """The pool served requests, and the report adds up."""
        self.assertIsNotNone(result.stats, repr(result))
        self.assertTrue(result.stats["reached"])
        self.assertGreaterEqual(result.hits, at_least if MODE == "wait" else 0, result.stats)
        totals = result.totals
        self.assertEqual(
            totals["requests"],
            totals["thread_cache_hits"]
            + totals["global_pool_hits"]
            + totals["refills"]
            + totals["real"],
        )
        self.assertEqual(
            totals["live_blocks"], totals["requests"] - totals["frees"] - totals["real_frees"]
        )
        tiers = result.stats["tiers"]
        self.assertEqual(sum(tier["live_blocks"] for tier in tiers), totals["live_blocks"], tiers)

    def assert_aside(self, result, reason, hits=0):
        """Every call was real (but for `hits`, which came before), for a reason that one line says
        and the report repeats."""
        self.assert_ok(result)
        self.assertRegex(result.err, rf"\Acmp: every call is real: [^\n]*{reason}[^\n]*\n\Z")
        self.assertEqual(result.hits, hits)
        self.assertEqual(result.stats["aside"], result.err[len("cmp: every call is real: ") : -1])

    def temporary_folder(self):
        folder = tempfile.TemporaryDirectory(prefix="cmp-test-")
        self.addCleanup(folder.cleanup)
        return pathlib.Path(folder.name)


def interposed():
    """The names in the shim's tables."""
    tables = "".join((SOURCE / "shim" / "lookup" / name).read_text()
                     for name in ("interposed.h", "driver_functions.inc", "submissions.inc"))
    tables = re.sub(r"#define CMP_RUNTIME_CALLED\(X\).*?\n\n", "", tables, flags=re.S)
    return re.findall(r"\b(?:X\(|R\(X, |S\(X, \w+, )(cu\w+),", tables)


def numbers(text):
    return [int(n) for n in re.findall(r"-?\d+", text)]


def main():
    unittest.main(verbosity=2)
