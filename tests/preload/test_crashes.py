"""A kernel crashes: from the call that tells of it on, every call answers as without the pool."""

import unittest

from preload import MODE, PROGRAMS, SANITIZE, SIM, TestCase, main, run

WAYS = ["device", "stream", "event", "query", "event-query", "copy", "host-free", "launches", "array",
        "levels", "module", "stream-destroy", "graph-destroy"]
SILENT = ("module", "stream-destroy", "graph-destroy")  # find out and succeed
# Once the driver knows.
QUESTIONS = ["is-capturing", "priority"]


class Crashes(TestCase):
    def test_reported(self):
        """By whatever call: then allocations fail too, of every kind and size."""
        for way in WAYS + ([] if SANITIZE else QUESTIONS):  # sanitizers refuse RTLD_DEEPBIND
            for seed in ("0", "1"):
                with self.subTest(way=way, seed=seed):
                    env = {"CMPSIM_SEED": seed, "LD_LIBRARY_PATH": f"{SIM}:{PROGRAMS}"}
                    without, within = self.run_both("crashes", [way], env)
                    told = 0 if way in SILENT else 719
                    self.assertIn(f"told {told}\ncudaMalloc 719\n", without.results)
                    self.assertEqual(without.results.count("cudaMalloc 719"), 4)
                    self.assertGreaterEqual(within.process["contexts_dropped"], 1)

    def test_reported_after_a_free(self):
        """The free may not have waited, and then says nothing; the next call that waits does."""
        for way in WAYS:
            if way in ("host-free", "launches") or way in SILENT:
                continue  # what they do first, the free would have told already; or they tell nothing
            with self.subTest(way=way):
                without = run("crashes", [way, "free"], preload=False)
                within = run("crashes", [way, "free"])
                self.assertEqual(without.notes["cudaFree"], "719")
                self.assertEqual(without.results, within.results, repr(within))
                self.assertEqual(within.err, "")

    def told(self, way):
        within = run("crashes", [way, "free"], env={"CMPSIM_DEVICES": "2"})
        self.assert_ok(within)
        return within, [int(value) for name, value in within.notes.items() if name.startswith("cu")]

    @unittest.skipIf(MODE == "none", "who asks for that has given up on what cudaFree tells")
    def test_the_context_ends(self):
        """Who ends the context tells what the free did not: somebody must."""
        for way in ("reset", "destroy", "detach", "release", "green"):
            with self.subTest(way=way):
                without = run("crashes", [way, "free"], preload=False, env={"CMPSIM_DEVICES": "2"})
                self.assertRegex(without.out, r"\A# cudaFree: 719\n(# \w+: 0\n)+\Z")
                within, told = self.told(way)
                # A reference that is not the last is given up without a wait.
                tells = "cudaFree" if MODE == "wait" else "cuEnd"
                self.assertEqual((within.notes[tells], sum(told)), ("719", 719), repr(within))
                self.assertEqual(within.err, "")
                # Nobody freed: what the real call says, which is nothing.
                self.run_both("crashes", [way], {"CMPSIM_DEVICES": "2"})

    @unittest.skipIf(MODE == "none", "likewise")
    def test_the_process_ends(self):
        within, told = self.told("nobody")
        if told == [719]:
            return self.assertEqual(within.err, "")
        self.assertRegex(within.err, r"\Acmp: GPU work before the last cudaFree has failed[^\n]*\n\Z")


if __name__ == "__main__":
    main()
