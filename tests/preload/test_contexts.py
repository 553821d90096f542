"""Contexts: resets, several devices, contexts of the driver API, old drivers, threads."""

import unittest

from preload import MODE, OLD_DRIVER, SANITIZE, WAIT, TestCase, main, run


class Contexts(TestCase):
    def check(self, scenario, env=None, clean=True):
        without, within = self.run_both("contexts", [scenario], env)
        if clean:
            self.assertIn("hazards 0, misuse 0", without.results)
        self.assert_served(within)
        for name, served in within.notes.items():
            if name.startswith("served"):
                self.assertGreaterEqual(int(served.split()[0]), 15 if MODE == "wait" else 0, f"{name}: {served}")
        return without, within

    def test_reset(self):
        for env in ({}, {"CMPSIM_SEED": "1"}, {"CMPSIM_SEED": "2"}, OLD_DRIVER):
            with self.subTest(env=env):
                without, within = self.check("reset", env)
                self.assertIn("stale free: 1, last error 1", without.results)
                self.assertTrue(without.results.count("wrong words 0, last error 0") >= 9)
                self.assertEqual(within.process["contexts_dropped"], 7)
                self.assertEqual(within.process["reserved_bytes"], 0)

    def test_devices(self):
        for env in ({}, {"CMPSIM_SEED": "2"}, OLD_DRIVER):
            with self.subTest(env=env):
                without, within = self.check("devices", {"CMPSIM_DEVICES": "2"} | env | WAIT)
                self.assertNotIn("is on device", without.results)
                self.assertEqual(without.results.count("after the free: pending 0"), 2)
                self.assertEqual(within.process["contexts"], 2)

    def test_short_lived_threads(self):
        _, within = self.check("threads")
        self.assertLess(int(within.notes["real"]), 60)  # of 1616
        self.assertGreater(within.totals["hit_rate"], 0.95)

    def test_contexts_of_the_driver(self):
        for env in ({}, {"CMPSIM_SEED": "2"}, OLD_DRIVER):
            with self.subTest(env=env):
                without, within = self.check("driver", env)
                self.assertIn("stale free: 1, last error 1", without.results)
                self.assertGreaterEqual(within.process["contexts"], 6)

    def test_detached_contexts(self):
        for env in ({}, {"CMPSIM_SEED": "2"}, OLD_DRIVER):
            with self.subTest(env=env):
                without, _ = self.check("detached", env)
                self.assertIn("wrong words 0\nhazards 0, misuse 0", without.results)

    def test_same_handle_again(self):
        for env in ({}, OLD_DRIVER):
            with self.subTest(env=env):
                self.check("same-handle", env)

    @unittest.skipIf(SANITIZE, "a sanitizer keeps more of its own")
    def test_contexts_that_ended_leave_nothing(self):
        without, within = self.run_both("contexts", ["many", "16000", "1"])
        grew = [int(result.notes["grew by"]) for result in (without, within)]
        self.assertLess(grew[1] - grew[0], 64 << 10)
        self.assertEqual(within.process["contexts_dropped"], 20000)

    @unittest.skipIf(SANITIZE, "a sanitizer keeps more of its own")
    def test_more_contexts_than_have_a_pool(self):
        """Those beyond get real calls, said once; and once there is room, pools again."""
        within = run("contexts", ["many", "16", "300"])
        self.assertIn("wrong words 0\nlive 0\nhazards 0, misuse 0\n", within.results)
        self.assertLess(int(within.notes["grew by"]), 1 << 20)  # for addresses not used before
        self.assertEqual(within.process["contexts_dropped"], 256 * 20)
        self.assertEqual(within.err.count("more than 256 contexts at once"), 1)

    def test_abandoned_capture(self):
        """The capture is forgotten with its context, which never had a pool."""
        for env in ({}, OLD_DRIVER):
            with self.subTest(env=env):
                without, within = self.run_both("contexts", ["abandoned-capture"], env)
                self.assertIn("begin 0\ndestroy 0\n", without.results)
                if env != OLD_DRIVER:  # whose frees are real once the process has captured
                    self.assertGreaterEqual(int(within.notes["served afterwards"].split()[0]), 19)

    def test_reset_after_capture(self):
        """What is known about a block that was made during a capture goes with a reset."""
        without, within = self.run_both("contexts", ["reset-after-capture"])
        self.assertNotIn("range at", without.results)
        self.assertEqual(within.notes["met"], "yes")

    def test_a_context_ends_beside_another_threads_work(self):
        """Its idle blocks are neither released any more nor taken for the other's memory."""
        for how in ("release", "reset", "detach", "destroy"):
            with self.subTest(how=how):
                without, within = self.run_both(
                    "contexts", ["end-beside", how], {"CMPSIM_MEMORY": "1G", "CMP_ASYNC_KEEP": "off"}
                )
                self.assertEqual(within.notes["at the address of a dead block"], "yes")
                self.assertIn("its attribute: 0, 2\ntoo much: 2\nuse: 0, 0\n", without.results)
                self.assertIn("hazards 0, misuse 0", without.results)

    def test_the_next_context_of_a_handle_is_made_while_the_last_one_ends(self):
        """None of its blocks is one of the dead context: found by review, where a release was the last."""
        for how in ("release", "reset"):
            with self.subTest(how=how):
                without, within = self.run_both("contexts", ["made-again-beside", how])
                self.assertEqual(within.notes["the same handle"], "yes")
                self.assertEqual(without.results.count("use: 0\nfree: 0\n"), 3)
                self.assertIn("end: 0\nhazards 0, misuse 0", without.results)

    def test_old_driver(self):
        """Without context events a free synchronises the context; the pool serves all the same."""
        _, within = self.check("work", OLD_DRIVER)
        self.assertEqual(within.process["contexts_dropped"], 0)


if __name__ == "__main__":
    main()
