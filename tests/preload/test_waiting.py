"""What cudaFree waits for, what cudaMalloc does not wait for, and failed contexts."""

from preload import OLD_DRIVER, SANITIZE, TestCase, main


class Waiting(TestCase):
    def test_free_waits_for_every_kind_of_stream(self):
        for env in ({}, {"CMP_FREE_SYNC": "wait"}, OLD_DRIVER, {"CMP_MODE": "observe"}):
            with self.subTest(env=env):
                without, within = self.run_both("waits", ["frees"], env)
                self.assertEqual(without.results.count("pending 1 then 0, flag 1, waited yes"), 40)
                self.assertNotIn("waited no", without.results)
                if env.get("CMP_MODE") != "observe":
                    self.assert_served(within, 100)
                    self.assertGreaterEqual(within.process["wait_calls"], 40)

    def test_what_a_free_holds_up(self):
        """CMP_MODE=observe: a launch of another thread while the free waits, and no other."""
        _, within = self.run_both("held_up", ["beside"], {"CMP_MODE": "observe"})
        counted = within.process
        self.assertEqual(counted["held_up_calls"], 1)
        self.assertGreaterEqual(counted["held_up_ns"], 20_000_000)
        self.assertGreaterEqual(counted["allocating_ns"], counted["held_up_ns"])
        calls_ns = counted["real_malloc_ns"] + counted["real_free_ns"]
        self.assertGreaterEqual(calls_ns, counted["held_up_ns"])
        _, within = self.run_both("held_up", ["before"], {"CMP_MODE": "observe"})
        self.assertEqual(within.process["held_up_calls"], 0)
        self.assertGreater(within.process["allocating_ns"], 0)
        _, within = self.run_both("held_up", ["beside"])  # under the pool nobody counts
        self.assertEqual(within.process["allocating_ns"] + within.process["held_up_ns"], 0)

    def test_host_functions(self):
        """They may not call CUDA: a free of theirs is refused, whatever it would have to wait for."""
        for mode in ("wait", "auto", "order", "none"):
            for env in ({}, {"CMPSIM_SEED": "1"}, {"CMPSIM_SEED": "2"}, OLD_DRIVER):
                with self.subTest(mode=mode, env=env):
                    without, within = self.run_both(
                        "host_functions", env=env | {"CMP_FREE_SYNC": mode}
                    )
                    self.assertEqual(without.results.count("frees 800 800 800 800\n"), 2)
                    self.assertEqual(without.results.count("afterwards 0 0 0, again 1\n"), 2)

    def test_lazy_device(self):
        """The same when the device runs nothing before it must."""
        for seed in (1, 2, 3, 4):
            with self.subTest(seed=seed):
                self.run_both("waits", ["host"], {"CMPSIM_SEED": seed})

    def test_host_sees_results(self):
        without, within = self.run_both("waits", ["host"])
        self.assertEqual(without.results, "done\nhazards 0, misuse 0\n")
        self.assert_served(within, 300)

    def test_malloc_waits_for_nothing(self):
        for env in ({}, {"CMP_RESERVE": "0"}, {"CMP_RESERVE": "1x"}, {"CMPSIM_SEED": "2"}):
            with self.subTest(env=env):
                without, within = self.run_both("waits", ["spin"], env)
                self.assertIn("still spinning: yes\nafter the free: 0 pending", without.results)
                self.assertGreater(within.totals["requests"], 70)

    def test_kernel_launched_while_malloc_is_over_the_bound(self):
        settings = ({"CMP_RESERVE": "0"}, {}, {"CMP_RESERVE": "1x"}, {"CMPSIM_SEED": "2"})
        for env in settings[:1] if SANITIZE else settings:
            with self.subTest(env=env):
                without, within = self.run_both("waits", ["spin-meanwhile"], env)
                self.assertEqual(without.results, "done\nhazards 0, misuse 0\n")
                self.assertEqual(within.totals["requests"], 20001)

    def test_failed_kernel(self):
        for when in ("unknown", "known", "reset"):
            for env in ({}, OLD_DRIVER):
                with self.subTest(when=when, env=env):
                    without, within = self.run_both("waits", ["trap", when], env)
                    self.assertIn("free: 719, last error 719", without.results)
                    self.assertGreaterEqual(within.process["contexts_dropped"], 1)
                    if when == "reset":
                        self.assertGreaterEqual(
                            int(within.notes["served after the reset"].split()[0]), 19
                        )


if __name__ == "__main__":
    main()
