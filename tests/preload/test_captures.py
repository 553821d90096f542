"""Stream captures: the same results and the same survival, and the pool serves again afterwards."""

from preload import MODE, OLD_DRIVER, SANITIZE, WAIT, TestCase, main, run


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
        for mode, name in ((1, "thread-local"), (2, "relaxed")):
            for env, captures in (({}, 1500), ({"CMPSIM_SEED": "2"}, 500), (OLD_DRIVER, 500)):
                with self.subTest(mode=name, env=env):
                    count = captures // 10 if SANITIZE else captures
                    without, within = self.run_both("captures", ["storm", mode, count, 3], env)
                    self.assertIn("captures that died 0, calls that failed 0", without.results)
                    if env != OLD_DRIVER:  # whose frees are real once the process has captured
                        self.assert_served_after(within)
                    self.assertGreater(within.totals["requests"], 15 if SANITIZE else 150)
                    if MODE == "wait":  # a free that waits meets a capture almost always: a real one then
                        self.assertGreater(within.process["capture_real_calls"], 0)


if __name__ == "__main__":
    main()
