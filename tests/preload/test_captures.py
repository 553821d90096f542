"""Stream captures: the same results and the same survival, and the pool serves again afterwards."""

import unittest

from preload import MODE, OLD_DRIVER, SANITIZE, WAIT, TestCase, main, run

# What is another during a capture than without the pool (capture_calls.cpp), in the global mode and
# by another thread: the real calls are refused and invalidate the capture, the pool's are served
# from ready blocks and leave it alone. In the words of the program: result, the thread's last error,
# the capture's end.
REFUSED = "900, last error {}, end 901"
SERVED = "0, last error 0, end 0"
DIFFERENT = {
    f"{kind}global, another, {call}": (REFUSED.format(last_error), SERVED)
    for kind in ("", "blocking, ")
    for call, last_error in (
        ("cudaMalloc, ready", 900),
        ("cuMemAlloc, ready", 0),
        ("cudaMallocPitch, ready", 900),
    )
}


class Captures(TestCase):
    def assert_served_after(self, within, at_least=15):
        """In every place where the program asked, most pairs needed no real allocation."""
        notes = {n: v for n, v in within.notes.items() if n.startswith("served")}
        self.assertTrue(notes)
        for name, served in notes.items():
            self.assertGreaterEqual(int(served.split()[0]), at_least if MODE == "wait" else 0, f"{name}: {served}")

    def test_calls_of_the_capturing_thread(self):
        for env in ({}, {"CMPSIM_SEED": "1"}, {"CMPSIM_SEED": "2"}):
            with self.subTest(env=env):
                without, within = self.run_both("captures", ["own"], env)
                self.assertIn("result: 900", without.results)
                self.assertIn("kernels run 6", without.results)
                self.assertGreater(within.process["capture_real_calls"], 0)
                self.assert_served_after(within)

    def test_calls_of_another_thread(self):
        """Where nothing is idle in the pool."""
        without, within = self.run_both("captures", ["other"])
        self.assertIn("result: 900", without.results)
        self.assert_served_after(within)

    def test_ready_blocks_during_a_capture(self):
        """Another thread gets what is ready, in every mode, and no capture dies of it."""
        within = run("captures", ["other-warm"])
        self.assert_ok(within)
        self.assertEqual(within.out.count("cudaMalloc: result: 0, last error 0"), 6, within.out)
        self.assertEqual(within.out.count("launch 0, end 0, graph made"), 6, within.out)
        self.assertEqual(within.out.count("kernels run 6"), 6, within.out)

    @unittest.skipIf(MODE != "wait", "under both modes anyway")
    def test_every_call(self):
        """Another thread's allocations from ready blocks differ, and nothing else."""
        modes = (WAIT, {"CMP_FREE_SYNC": "auto"}, OLD_DRIVER)
        for env in modes[:2] if SANITIZE else modes:
            with self.subTest(env=env):
                without = run("capture_calls", preload=False, env=env)
                within = run("capture_calls", env=env)
                self.assert_ok(without)
                self.assert_ok(within)
                self.assertEqual(without.err + within.err, "")
                self.assertEqual(without.out.splitlines()[-1], "hazards 0, misuse 0")
                self.assertEqual(within.out.splitlines()[-1], "hazards 0, misuse 0")
                rows = [dict(line.rsplit(": ", 1) for line in result.out.splitlines()[:-1])
                        for result in (without, within)]
                self.assertEqual(rows[0].keys(), rows[1].keys())
                self.assertGreater(len(rows[0]), 1500)
                different = {row: (rows[0][row], rows[1][row])
                             for row in rows[0] if rows[0][row] != rows[1][row]}
                self.assertEqual(different, DIFFERENT)

    def test_endings(self):
        without, within = self.run_both("captures", ["endings"])
        self.assertIn("hazards 0, misuse 0", without.results)
        self.assert_served_after(within)

    def test_a_capture_into_the_same_graph_again(self):
        without, within = self.run_both("captures", ["recapture"])
        self.assertEqual(without.results.count("kernels run 1\n"), 2)
        self.assert_served_after(within)

    def test_reset_ends_captures(self):
        _, within = self.run_both("captures", ["reset"])
        self.assert_served_after(within)

    def test_many_captures_at_once(self):
        without, within = self.run_both("captures", ["many"])
        self.assertIn("invalidated: 100", without.results)
        self.assert_served_after(within)

    def test_graph_results(self):
        for seed in (0, 1, 2, 3, 4):
            with self.subTest(seed=seed):
                without, within = self.run_both("captures", ["graphs"], {"CMPSIM_SEED": seed})
                self.assertIn("hazards 0", without.results)
                self.assert_served(within, 10)

    def test_begin_while_a_free_waits(self):
        """The beginning of a capture does not wait for a free that waits for what the host does later."""
        for env in (WAIT, OLD_DRIVER | WAIT):
            with self.subTest(env=env):
                without, within = self.run_both("captures", ["begin-while-free-waits"], env)
                self.assertIn("the free has returned: no\n", without.results)
                if env == WAIT:  # an old driver's frees are real once the process has captured
                    self.assert_served_after(within)

    def test_storm(self):
        """Thousands of captures while other threads allocate and free."""
        real_calls = 0
        for mode, name in ((1, "thread-local"), (2, "relaxed")):
            for env, captures in (({}, 1500), ({"CMPSIM_SEED": "2"}, 500), (OLD_DRIVER, 500)):
                with self.subTest(mode=name, env=env):
                    count = captures // 10 if SANITIZE else captures
                    without, within = self.run_both("captures", ["storm", mode, count, 3], env)
                    self.assertIn("captures that died 0, calls that failed 0", without.results)
                    if env != OLD_DRIVER:  # whose frees are real once the process has captured
                        self.assert_served_after(within)
                    self.assertGreater(within.totals["requests"], 15 if SANITIZE else 150)
                    real_calls += within.process["capture_real_calls"]
        if MODE == "wait":  # a free that waits meets a capture almost always: a real one then
            self.assertGreater(real_calls, 0)


if __name__ == "__main__":
    main()
