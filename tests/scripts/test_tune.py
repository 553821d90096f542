"""cmp-preload tune: what it tries, measures and recommends."""

import contextlib
import io
import os
import re
import signal
import sys
import types
import unittest.mock

from command import BUILD, LIBRARY, PLAIN, TestCase, environment, main, measured, run
from cmp_preload.commands import tune
from cmp_preload.console.errors import Interrupted
from cmp_preload.measuring import replays
from cmp_preload.measuring.series import Series
from cmp_preload.records import trace_file
from cmp_preload.records.calls import Call, Trace

# The simulated calls cost what the real ones do.
SIMULATED = {"CMPSIM_COSTS": "h200", "CMPSIM_MEMORY": "4G"}
# By a clock that goes on only as calls look at it: however busy the machine is, they take no longer.
UNDISTURBED = {**SIMULATED, "LD_PRELOAD": str(BUILD / "programs" / "patient_clock.so")}
LARGE_BLOCKS = """
import ctypes
cuda = ctypes.CDLL("libcudart.so.13")
p = ctypes.c_void_p()
for _ in range(200):
    assert cuda.cudaMalloc(ctypes.byref(p), ctypes.c_size_t(3 << 29)) == 0
    assert cuda.cudaFree(p) == 0
"""


class Tunes(TestCase):
    def test_a_program_whose_blocks_are_large(self):
        """Larger than the pool takes by itself. (Whether that helps a process that shares the
        machine with others is not for a test: see Verdicts.)"""
        result = run("tune", "-n", "1", "--", sys.executable, "-c", LARGE_BLOCKS, env=UNDISTURBED)
        self.assert_ok(result)
        lines = result.stdout.splitlines()
        self.assertRegex(lines[0], r"^400 calls of python\S* recorded, \d+ replays\.$")
        self.assertRegex(lines[1], r"^(Use|Tried): .*\bCMP_MAX_BLOCK=64G")
        self.assertRegex(lines[2], "^Predicted: .* in allocation calls would be ")
        self.assertEqual(
            [line.split("  ")[0] for line in lines[4:7]], ["measured", "the defaults", "tuned"]
        )
        # What is given stays.
        given = ("--max-block", "1G")
        result = run("tune", "-n", "1", *given, "--", sys.executable, "-c", LARGE_BLOCKS, env=UNDISTURBED)
        self.assert_ok(result)
        self.assertNotIn("CMP_MAX_BLOCK", result.stdout)

    def test_a_program_whose_frees_wait_for_memory(self):
        """The bound shows in no replay; the run that is recorded tells."""
        enough = "600"  # with half as many it may be that none waits
        result = run("tune", "-n", "1", "--", BUILD / "churn", "2", enough, env=UNDISTURBED)
        self.assert_ok(result)
        lines = result.stdout.splitlines()
        self.assertRegex(lines[1], r"^(Use|Tried): ")
        self.assertIn("\nmore memory  ", result.stdout)
        self.assertRegex(
            result.stdout,
            r"\n\d+ frees waited because the pool had reached its memory limit, which no replay "
            r"shows: measured with CMP_RESERVE=1\.5x\+1G, too\.\n",
        )

    def test_a_program_of_stream_ordered_allocations(self):
        """None of them is in a trace."""
        program = (BUILD / "programs" / "async_keep", "loop", "20")
        result = run("tune", "-n", "1", "--", *program, env=SIMULATED)
        self.assert_ok(result)
        self.assertRegex(result.stdout, r"\n(Use|Tried): CMP_ASYNC_KEEP=(off|1T)\n")
        self.assertIn("\nNo replay shows what its stream-ordered allocations cost", result.stdout)
        for name in ("the defaults", "async off", "async 1T"):
            self.assertIn(f"\n{name}  ", result.stdout)
        result = run("tune", "-n", "1", "--async-keep", "off", "--", *program, env=SIMULATED)
        self.assert_ok(result)
        self.assertIn("Your settings are right", result.stdout)

    def test_a_program_of_page_locked_memory(self):
        """No call of it is in a trace, so there is nothing to replay."""
        program = (BUILD / "programs" / "page_locked", "loop", "runtime", "100")
        result = run("tune", "-n", "1", "--", *program, env=SIMULATED)
        self.assert_ok(result)
        self.assertIn("0 calls of page_locked recorded, 0 replays.", result.stdout)
        # How much of the run its calls take is a busy machine's affair.
        self.assertRegex(result.stdout, "The defaults are right|\npage-locked memory kept  ")

    def test_a_program_that_does_not(self):
        result = run("tune", "--", PLAIN, "2000")
        self.assert_ok(result)
        self.assertIn("4,000 calls of plain recorded", result.stdout)
        # What a busy machine allows to say.
        self.assertRegex(result.stdout, "The defaults are right|would tell: -n|Too noisy|too short")
        self.assertNotIn("Use:", result.stdout)

    def test_search(self):
        candidates = {name: tune.CANDIDATES[name] for name in ("CMP_MAX_BLOCK", "CMP_SLACK")}
        path = str(self.folder() / "t")
        outcomes = ["real", "real_free"] * 50
        calls = [Call.of(i, 0, 1, name, 0x1000, 3 << 29) for i, name in enumerate(outcomes)]
        trace_file.write(Trace(calls), path)
        replayed = replays.Replays(path, LIBRARY)

        def timed(*arguments):  # by what was no hit: beside other work the clock says anything
            result = replay(*arguments)
            result["allocations"]["ns"] = round((1 - result["hit_rate"]) * 1e9)
            result["frees"]["ns"] = 1000
            return result

        replay = replays.replay
        with (
            unittest.mock.patch.dict(os.environ, environment(SIMULATED)),
            unittest.mock.patch.object(replays, "replay", timed),
        ):
            settings, without, reached = replayed.search({}, candidates)
            self.assertEqual(settings["CMP_MAX_BLOCK"], "64G")
            self.assertLess(reached["ns"], without["ns"])
            self.assertGreaterEqual(reached["reserved"], 3 << 29)
            fixed = {"CMP_MAX_BLOCK": "1G", "CMP_SLACK": "10%"}
            self.assertEqual(replayed.search(fixed, candidates)[0], {})

    def test_candidates_are_right(self):
        for name, values in tune.CANDIDATES.items():
            default = next(option.default for option in LIBRARY.options() if option.name == name)
            for value in values:
                self.assertTrue(LIBRARY.is_right(name, value), (name, value))
                self.assertNotEqual(value, default)

    def test_wrong(self):
        for arguments, word, code in (
            ([], "which program", 2),
            (["-n", "0", PLAIN], "-n", 2),
            (["--tier-steps", "7", PLAIN], "--tier-steps", 2),
            (["/nowhere"], "/nowhere", 127),
        ):
            self.assert_refused(run("tune", *arguments), word, code=code)
        for arguments, word in (
            (["/bin/true"], "nothing to tune"),
            (["/bin/false"], "exit code 1"),
        ):
            result = run("tune", "--", *arguments)
            self.assert_ok(result, 1)
            self.assertEqual(result.stdout, "")
            self.assertIn(word, result.stderr.splitlines()[-1])


class Verdicts(TestCase):
    """From times that are made up: those of a busy machine say anything."""

    def tuned(self, calls_s, *runs, fixed=None, waits=0, page_locked=0):
        """What is printed of a program whose calls take `calls_s` in all in a replay, half of it
        with larger blocks. `runs`: with the defaults and with each of what is tried, (seconds, of
        that in real calls and waits, maybe other counters). `waits`: frees of the recorded run that waited for memory;
        `page_locked`: its frees of page-locked memory, which take 10 ms each."""

        def replay(path, library, backend, order, chosen):
            ns = calls_s * 1e9 * (0.5 if chosen.get("CMP_MAX_BLOCK") == "64G" else 1)
            calls = {"ns": ns / 2}
            held = {"reserved_peak_bytes": 1 << 20, "failures": 0}
            return {"allocations": calls, "frees": calls, **held}

        def measure(all_series):
            for series, its_runs in zip(all_series, runs, strict=True):
                series.runs = [measured(*run[:2], **dict(*run[2:])) for run in its_runs * 2]

        path = str(self.folder() / "t")
        trace_file.write(Trace([Call.of(0, 0, 1, "real", 0x1000, 3 << 29)]), path)
        waited = {"bound_waits": waits, "wait_calls": waits, "wait_ns": waits * 1_000_000}
        waited["host_real_free_calls"] = page_locked
        waited["host_real_free_ns"] = page_locked * 10_000_000
        record = lambda fixed: (path, measured(*runs[0][0], **waited))
        tuning = types.SimpleNamespace(record=record, measure=measure)
        printed = io.StringIO()
        with (
            unittest.mock.patch.object(replays, "replay", replay),
            contextlib.redirect_stdout(printed),
        ):
            tune.tune(tuning, LIBRARY, fixed or {}, len(runs[0]))
        return printed.getvalue()

    def better(self, usual, tuned, calls_s=1.0):
        said = self.tuned(calls_s, usual, tuned)
        others = re.findall("gains nothing by these|would tell: -n |Too noisy|too short|may be chance", said)
        self.assertEqual(len(others), 0 if "\nUse: CMP_MAX_BLOCK=64G" in said else 1, said)
        return "\nUse:" in said

    USUAL = [(1.00, 0.2), (1.01, 0.2), (1.02, 0.2)]

    def test_a_program_that_gains(self):
        self.assertTrue(self.better(self.USUAL, [(0.80, 0.1), (0.81, 0.1), (0.82, 0.1)]))
        self.assertTrue(self.better(self.USUAL, [(0.80, 0.3), (0.81, 0.3), (0.82, 0.3)]))
        # As fast, within what runs differ by: only if less time goes into real calls.
        self.assertTrue(self.better(self.USUAL, [(1.00, 0.1), (1.01, 0.1), (1.02, 0.1)]))
        self.assertFalse(self.better(self.USUAL, [(1.00, 0.2), (1.01, 0.2), (1.02, 0.2)]))
        self.assertFalse(self.better(self.USUAL, [(1.00, 0.1), (1.01, 0.1), (1.02, 0.19)]))

    def test_interrupted(self):
        """What has run is shown; before there is anything to compare, nothing."""
        path = str(self.folder() / "t")
        trace_file.write(Trace([Call.of(0, 0, 1, "real", 0x1000, 3 << 29)]), path)
        for finished, ended in ((1, 143), (0, None)):

            def measure(all_series):
                for series in all_series[: len(all_series) if finished else 1]:
                    series.runs = [measured(1.0, 0.2)]
                raise Interrupted(signal.SIGTERM)

            held = {"reserved_peak_bytes": 1, "failures": 0}

            def replay(path, library, backend, order, chosen):
                calls = {"ns": 5e8 if chosen.get("CMP_MAX_BLOCK") == "64G" else 1e9}
                return {"allocations": calls, "frees": calls, **held}

            tuning = types.SimpleNamespace(
                record=lambda fixed: (path, measured(1.0, 0.2)), measure=measure
            )
            printed = io.StringIO()
            with (
                unittest.mock.patch.object(replays, "replay", replay),
                contextlib.redirect_stdout(printed),
            ):
                if ended is None:
                    with self.assertRaises(Interrupted):
                        tune.tune(tuning, LIBRARY, {}, 6)
                else:
                    self.assertEqual(tune.tune(tuning, LIBRARY, {}, 6), ended)
                    self.assertIn("Interrupted: this is what the runs until", printed.getvalue())
                    self.assertIn("-n 6.", printed.getvalue())

    def test_few_runs_say_little(self):
        said = self.tuned(1.0, [(1.00, 0.2)], [(0.50, 0.1)])
        self.assertIn("With fewer than 6 runs of each any difference may be chance: -n 6.", said)
        self.assertNotIn("Use:", said)

    def test_gain_and_price(self):
        said = self.tuned(1.0, self.USUAL, [(0.80, 0.1), (0.81, 0.1), (0.82, 0.1)])
        self.assertIn("\nGain: 1.2 times faster. Price: no more memory.\n", said)
        self.assertRegex(said, r"\nReplayed, not kept \(.*\): CMP_TIER_STEPS=2 1\.00, ")
        said = self.tuned(1.0, self.USUAL, [(1.00, 0.1), (1.01, 0.1), (1.02, 0.1)])
        self.assertIn("\nGain: 100.0 ms in real calls and waits in place of 200.0 ms.", said)

    def test_page_locked_memory(self):
        """No replay shows what keeping it gains: it is measured, where it is allocated in a loop."""
        held = {"host_reserved_peak_bytes": 3 << 20}
        gains = [(0.50, 0.2, held), (0.51, 0.2, held), (0.52, 0.2, held)]
        said = self.tuned(0.1, self.USUAL, self.USUAL, gains, page_locked=60)
        self.assertIn("CMP_HOST=on", said.splitlines()[1])
        self.assertIn("\nUse:", said)
        price = "Price: up to 3 MiB of page-locked memory that the pool holds.\n"
        self.assertIn(price, said)
        said = self.tuned(0.1, self.USUAL, self.USUAL, self.USUAL, page_locked=60)
        self.assertIn("\npage-locked memory kept", said)
        self.assertNotIn("\nUse:", said)
        for few, fixed in ((3, {}), (60, {"CMP_HOST": "off"})):
            said = self.tuned(0.1, self.USUAL, self.USUAL, page_locked=few, fixed=fixed)
            self.assertNotIn("CMP_HOST", said)

    def test_a_program_that_loses(self):
        """If only by what runs differ by, whatever the calls take."""
        self.assertFalse(self.better(self.USUAL, [(0.95, 0.1), (1.05, 0.1), (1.15, 0.1)]))
        self.assertFalse(self.better(self.USUAL, [(1.20, 0.1), (1.21, 0.1), (1.22, 0.1)]))

    def test_no_more_is_gained_than_the_calls_take(self):
        """A difference that they cannot make is chance, however clear it is."""
        usual = [(0.0190, 29e-6), (0.0191, 28e-6), (0.0192, 30e-6)]
        tuned = [(0.0100, 29e-6), (0.0101, 29e-6), (0.0102, 29e-6)]
        self.assertFalse(self.better(usual, tuned, 400e-6))
        # Nor by one run that was held up inside of a call.
        usual[1] = (0.0291, 0.01)
        self.assertFalse(self.better(usual, tuned, 400e-6))
        long = [(3.00, 0.05), (3.00, 0.05), (3.00, 0.05)]
        self.assertFalse(self.better(long, [(2.00, 0.05)] * 3, 0.03))
        self.assertTrue(self.better(long, [(2.00, 0.05)] * 3, 0.06))

    def test_what_is_given_stays(self):
        given = {"CMP_MAX_BLOCK": "1G"}
        said = self.tuned(1.0, self.USUAL, fixed=given)
        self.assertIn("Your settings are right: no other setting", said)
        given["CMP_RESERVE"] = "1x"
        said = self.tuned(1.0, self.USUAL, fixed=given, waits=500)
        self.assertIn("Your settings are right: no other setting", said)

    def test_more_memory(self):
        """It is measured beside what the replays found, and recommended only if it gains more."""
        found = "CMP_MAX_BLOCK=64G"
        both = f"{found} CMP_RESERVE=1.5x+1G"
        gains = [(0.80, 0.1), (0.81, 0.1), (0.82, 0.1)]
        gains_more = [(0.60, 0.0), (0.61, 0.0), (0.62, 0.0)]
        for larger, more, said in (
            (self.USUAL, self.USUAL, f"\nTried: {both}\n"),
            (gains, gains, f"\nUse: {found}\n"),
            (gains, self.USUAL, f"\nUse: {found}\n"),
            (self.USUAL, gains, f"\nUse: {both}\n"),
            (gains, gains_more, f"\nUse: {both}\n"),
        ):
            with self.subTest(larger=larger, more=more):
                told = self.tuned(1.0, self.USUAL, larger, more, waits=500)
                self.assertIn(said, told)
                self.assertIn("\n500 frees waited because the pool had reached its memory", told)
        # The only thing to try.
        given = {"CMP_MAX_BLOCK": "1G"}
        told = self.tuned(1.0, self.USUAL, gains, fixed=given, waits=500)
        self.assertIn("\nUse: CMP_RESERVE=1.5x+1G\n", told)
        told = self.tuned(1.0, self.USUAL, self.USUAL, fixed=given, waits=500)
        self.assertIn("\nTried: CMP_RESERVE=1.5x+1G\n", told)
        self.assertIn("Your settings are right: the program gains nothing", told)


if __name__ == "__main__":
    main()
