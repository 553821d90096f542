"""cmp-preload tune: what it tries, measures and recommends."""

import os
import sys
import unittest.mock

from command import BUILD, PLAIN, SOURCE, TestCase, environment, main, run

sys.path.insert(0, str(SOURCE / "scripts"))
from cmp_preload import trace, tune
from cmp_preload.library import Library
from cmp_preload.measure import Run
from cmp_preload.series import Series

LIBRARY = Library(str(BUILD / "libcmp_preload.so"))
# The simulated calls cost what the real ones do.
SIMULATED = {"CMPSIM_COSTS": "h200", "CMPSIM_MEMORY": "4G"}
LARGE_BLOCKS = """
import ctypes
cuda = ctypes.CDLL("libcudart.so.13")
p = ctypes.c_void_p()
for _ in range(400):
    assert cuda.cudaMalloc(ctypes.byref(p), ctypes.c_size_t(3 << 29)) == 0
    assert cuda.cudaFree(p) == 0
"""


def measured(seconds, allocation_s):
    """A run that took so long, and so long in real calls."""
    result = Run()
    result.seconds = seconds
    names = LIBRARY.counters("process")
    process = {name: 0 for name in names} | {"real_malloc_ns": allocation_s * 1e9}
    result.statistics = [{"reached": True, "totals": {}, "process": process, "tiers": []}]
    return result


class Tunes(TestCase):
    def test_a_program_that_gains(self):
        """Its blocks are larger than the pool takes by itself."""
        result = run("tune", "-n", "1", "--", sys.executable, "-c", LARGE_BLOCKS, env=SIMULATED)
        self.assert_ok(result)
        lines = result.stdout.splitlines()
        self.assertRegex(lines[0], r"^800 calls of python\S* recorded, \d+ replays\.$")
        # What else is recommended depends on what was measured.
        self.assertRegex(lines[1], r"^Use: .*\bCMP_MAX_BLOCK=16G")
        self.assertRegex(lines[2], "^Predicted: .* in allocation calls would be ")
        self.assertEqual(
            [line.split("  ")[0] for line in lines[4:]], ["measured", "the defaults", "tuned"]
        )
        # What is given stays, and then there is nothing to gain.
        result = run(
            "tune",
            "--max-block",
            "1G",
            "--",
            sys.executable,
            "-c",
            LARGE_BLOCKS,
            env=SIMULATED,
        )
        self.assert_ok(result)
        self.assertIn("Your settings are right", result.stdout)

    def test_a_program_whose_frees_wait_for_memory(self):
        """The bound shows in no replay; the run that is recorded tells."""
        result = run("tune", "-n", "1", "--", BUILD / "churn", "2", "300", env=SIMULATED)
        self.assert_ok(result)
        self.assertRegex(result.stdout, r"\n(Use|Tried): .*CMP_RESERVE=2x\+1G\n")
        self.assertRegex(result.stdout, r"\nPredicted: .*; \d+ frees would not wait for memory")

    def test_a_program_that_does_not(self):
        result = run("tune", "--", PLAIN, "2000")
        self.assert_ok(result)
        self.assertIn("4,000 calls of plain recorded", result.stdout)
        self.assertIn("The defaults are right", result.stdout)
        self.assertNotIn("Use:", result.stdout)

    def test_only_what_measured_better_is_recommended(self):
        def better(usual, tuned):
            both = Series("the defaults", {}, 3), Series("tuned", {}, 3)
            for series, runs in zip(both, (usual, tuned)):
                series.runs = [measured(*run) for run in runs]
            return tune.is_better(both[1], both[0])

        usual = [(1.00, 0.2), (1.01, 0.2), (1.02, 0.2)]
        self.assertTrue(better(usual, [(0.80, 0.1), (0.81, 0.1), (0.82, 0.1)]))
        self.assertTrue(better(usual, [(0.80, 0.3), (0.81, 0.3), (0.82, 0.3)]))
        # As fast, within what runs differ by: only if less time goes into real calls.
        self.assertTrue(better(usual, [(1.00, 0.1), (1.01, 0.1), (1.02, 0.1)]))
        self.assertFalse(better(usual, [(1.00, 0.2), (1.01, 0.2), (1.02, 0.2)]))
        self.assertFalse(better(usual, [(1.00, 0.1), (1.01, 0.1), (1.02, 0.19)]))
        self.assertFalse(better([(1.00, 0.2)], [(1.00, 0.1)]), "one run each says little")
        # Slower, if only by what runs differ by, whatever the calls take.
        self.assertFalse(better(usual, [(0.95, 0.1), (1.05, 0.1), (1.15, 0.1)]))
        self.assertFalse(better(usual, [(1.20, 0.1), (1.21, 0.1), (1.22, 0.1)]))

    def test_search(self):
        candidates = {name: tune.CANDIDATES[name] for name in ("CMP_MAX_BLOCK", "CMP_SLACK")}
        path = str(self.folder() / "t")
        outcomes = ["real", "real_free"] * 50
        calls = [trace.call(i, 0, 1, name, 0x1000, 3 << 29) for i, name in enumerate(outcomes)]
        trace.write(trace.Trace(calls), path)
        replays = tune.Replays(path, LIBRARY)
        with unittest.mock.patch.dict(os.environ, environment(SIMULATED)):
            settings, without, reached = replays.search({}, candidates)
            self.assertEqual(settings["CMP_MAX_BLOCK"], "16G")
            self.assertLess(reached["ns"], without["ns"] / 5)
            self.assertGreaterEqual(reached["reserved"], 3 << 29)
            fixed = {"CMP_MAX_BLOCK": "1G", "CMP_SLACK": "10%"}
            self.assertEqual(replays.search(fixed, candidates)[0], {})

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
            (["/nowhere"], "/nowhere", 1),
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


if __name__ == "__main__":
    main()
