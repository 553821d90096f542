"""Many threads, mixed sizes, kernels that write and check: the same results, fewer real calls."""

import unittest

from preload import MODE, SANITIZE, TestCase, main, numbers, run


class Basics(TestCase):
    def check(self, threads, steps, seed, env=None):
        without, within = self.run_both("work", [threads, steps, seed], env=env)
        self.assertIn("wrong words 0, last error 0", without.results)
        self.assertIn("hazards 0, misuse 0", without.results)
        self.assert_served(within)
        return without, within

    def assert_cheaper(self, without, within):
        real_before = numbers(without.notes["real"])
        real_after = numbers(within.notes["real"])
        allocations = numbers(without.results)[0]
        self.assertEqual(real_before, [allocations, allocations])
        # What the report says of the real calls is what the driver saw.
        self.assertEqual(real_after[0], within.process["real_malloc_calls"])
        self.assertEqual(real_after[1], within.process["real_free_calls"])
        self.assertEqual(within.totals["requests"], allocations)
        self.assertEqual(within.totals["live_blocks"], 0)
        avoided = sum(real_before) - sum(real_after)
        self.assertGreater(avoided, allocations)
        self.assertGreater(within.totals["hit_rate"], 0.5, within.totals)

    # Nothing ages: it would be counted after the program has looked.
    STILL = {"CMP_DECAY": "off"}

    def test_one_thread(self):
        without, within = self.check(1, 4000, 1, env=self.STILL)
        self.assert_cheaper(without, within)

    def test_many_threads(self):
        without, within = self.check(8, 1500, 2, env=self.STILL)
        self.assert_cheaper(without, within)

    def test_schedules(self):
        """Odd seeds jitter, even ones run nothing before it must."""
        for seed in (1, 2, 3, 4, 17, 100):
            with self.subTest(seed=seed):
                self.check(4, 500, seed, env={"CMPSIM_SEED": seed})

    def test_every_sizing_option(self):
        for option, value in (
            ("CMP_TIER_STEPS", 1),
            ("CMP_TIER_STEPS", 16),
            ("CMP_MAX_BLOCK", "64K"),
            ("CMP_MAX_BLOCK", 256),
            ("CMP_THREAD_CACHE_MAX_BLOCK", 0),
            ("CMP_THREAD_CACHE_BYTES", 0),
            ("CMP_THREAD_CACHE_BYTES", "64K"),
            ("CMP_BATCH_BYTES", 1),
            ("CMP_SLACK", "0%"),
            ("CMP_SLACK", "100%"),
            ("CMP_RESERVE", "1x"),
            ("CMP_RESERVE", "0"),
        ):
            with self.subTest(option=option, value=value):
                self.check(3, 300, 5, env={option: value, "CMPSIM_SEED": 2})

    def test_modes_without_a_pool(self):
        for mode in ("observe", "off"):
            with self.subTest(mode=mode):
                without, within = self.run_both("work", [3, 300, 7], env={"CMP_MODE": mode})
                self.assertEqual(without.notes, within.notes)  # every call is real

    def test_little_memory(self):
        self.check(4, 400, 9, env={"CMPSIM_MEMORY": "128M", "CMPSIM_SEED": 3})

    @unittest.skipIf(MODE != "wait", "of every mode anyway")
    def test_addresses_repeat(self):
        """Where frees wait, or the device is done before them: however long its work takes. Otherwise
        it depends on how far the device is which block is ready."""
        for work in ("pending", "done"):
            for mode in (None, "wait", "order", "auto", "none"):
                with self.subTest(work=work, mode=mode):
                    found = set()
                    for seed in (1, 3) if SANITIZE else (1, 3, 5):  # other durations
                        # Memory that ages may move what comes after it.
                        env = {"CMP_FREE_SYNC": mode, "CMPSIM_SEED": seed, "CMP_DECAY": "off"}
                        result = run("addresses", [work], preload=mode is not None, env=env)
                        self.assert_ok(result)
                        self.assertIn("hazards 0, misuse 0", result.results)
                        found.add(result.results)
                    if work == "done" or mode in (None, "wait"):
                        self.assertEqual(len(found), 1)
                    else:
                        self.assertGreater(len(found), 1)

    def test_runs_are_not_all_equal(self):
        """The comparison can fail: another seed gives other results."""
        first = run("work", [1, 50, 1], preload=False)
        second = run("work", [1, 50, 2], preload=False)
        self.assertNotEqual(first.results, second.results)


if __name__ == "__main__":
    main()
