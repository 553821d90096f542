"""CMP_ASYNC_KEEP: stream-ordered pools keep what was freed, and the program sees none of it."""

from preload import ONE_THREAD, PATIENT, SANITIZE, TestCase, main, run

CLEAN = "hazards 0, misuse 0"
# No tick: one brings a pool down to the most that was in use together. The first comes after 50 ms,
# however long CMP_DECAY is, and a slow program is still at it then.
SMALL = {"CMPSIM_MEMORY": "1G", "CMP_DECAY": "off"}
SHORT = {"CMP_DECAY": "300ms"}
LONG_MS = 1500  # more than that and its ticks; of a clock that waits for the program


class AsyncKeep(TestCase):
    def kept(self, *arguments, program="async_keep", preload=True, **env):
        """MiB of the device in use at each note, and the run: what the program says is the same as
        without the preload."""
        without, within = self.run_both(program, arguments, env=SMALL | env, preload=preload)
        self.assertIn(CLEAN, within.results)
        self.assertEqual({int(said) for said in without.notes.values()} - {0}, self.real)
        return {when: int(said) for when, said in within.notes.items()}, within

    real = set()  # what is in use without the preload

    def test_up_to_what_the_bound_allows(self):
        for program in ("async_keep", "async_keep_static"):
            with self.subTest(program=program):
                kept, within = self.kept("rounds", program=program)
                self.assertEqual(kept, {
                    "kept after 1": 2, "kept after 64": 64, "kept after 100": 100, "asked": 0,
                    "another stream": 8, "the thread's": 24, "by cudaFree": 28})
                self.assertEqual(within.process["async_allocations"], 26)
                self.assertEqual(within.process["kept_pools"], 1)
                self.assertGreaterEqual(within.process["kept_released_bytes"], 100 << 20)
                self.assertEqual(within.process["kept_aged_bytes"], 0)

    def test_settings(self):
        # What is kept of smaller blocks goes first.
        kept, _ = self.kept("rounds", CMP_RESERVE="1x")
        self.assertEqual((kept["kept after 64"], kept["kept after 100"]), (64, 100))
        kept, within = self.kept("rounds", CMP_ASYNC_KEEP="off")
        self.assertEqual(set(kept.values()), {0})
        self.assertEqual((within.process["async_allocations"], within.process["kept_pools"]),
                         (26, 0))
        kept, _ = self.kept("rounds", CMP_ASYNC_KEEP="70M")
        self.assertEqual((kept["kept after 64"], kept["kept after 100"]), (64, 0))
        kept, within = self.kept("rounds", CMP_MODE="observe")
        self.assertEqual(set(kept.values()), {0})
        self.assertEqual((within.process["async_allocations"], within.process["kept_pools"]),
                         (26, 0))
        kept, within = self.kept("rounds", CMP_MODE="off")
        self.assertEqual(set(kept.values()), {0})
        self.assertEqual(within.process["async_allocations"], 0)
        kept, _ = self.kept("rounds", CMP_PROGRAMS="!async_keep")
        self.assertEqual(set(kept.values()), {0})

    def test_what_was_in_use_together(self):
        """Blocks of 40, 40, 60 and 20 MiB, of 80 at once: the largest goes."""
        kept, _ = self.kept("sizes", CMP_RESERVE="1.5x")
        self.assertEqual(kept, {"kept": 100})
        kept, _ = self.kept("sizes", CMP_RESERVE="2x")
        self.assertEqual(kept, {"kept": 160})

    def test_few_calls(self):
        kept, _ = self.kept("calls")
        self.assertEqual(kept["calls without"], 0)
        self.assertLessEqual(kept["calls within"], 100)  # of a thousand rounds
        kept, _ = self.kept("calls", CMP_ASYNC_KEEP="off")
        self.assertEqual(kept["calls within"], 0)

    def test_the_programs_own_pools(self):
        self.real = {8}
        kept, within = self.kept("programs")
        for name in ("limited", "shareable", "set to 0"):
            self.assertEqual(kept[name], 0)
        self.assertEqual(kept["own"], 24)
        self.assertEqual(kept["set to 10 MiB"], 8)
        for name in ("limited", "shareable", "set to 0", "own", "set to 10 MiB"):
            self.assertEqual(kept[f"{name}, trimmed"], 0)
            self.assertEqual(kept[f"{name}, gone"], 0)
        self.assertEqual((kept["before it is set"], kept["set to 4 MiB"]), (32, 0))
        self.assertEqual(within.process["kept_pools"], 2)

    def test_set_by_the_program(self):
        """What a pool keeps is gone once the program decides about it."""
        kept, _ = self.kept("sets")
        self.assertEqual(kept, {"before it is set": 32, "after it was set": 0})

    def test_one_that_ends_while_it_is_in_use(self):
        self.real = {8}
        kept, _ = self.kept("in_use")
        self.assertEqual(kept, {"before": 40, "when it ends": 8, "after": 0})

    def test_handles_of_streams_are_used_again(self):
        kept, _ = self.kept("streams", CMPSIM_DEVICES="2")
        self.assertEqual(kept, {"first": 8, "second": 16, "asked": 0})

    def test_asked_during_a_tick(self):
        kept, _ = self.kept("ticks", preload=PATIENT, **SHORT)
        self.assertEqual(kept, {"kept": 32, "asked": 0})

    def test_the_devices_current_pool(self):
        kept, _ = self.kept("current")
        self.assertEqual(kept, {"the default one": 8, "the other one": 24, "without it": 8})

    def test_again_after_a_reset(self):
        kept, _ = self.kept("reset")
        for i in range(3):
            self.assertEqual((kept[f"before reset {i}"], kept[f"after reset {i}"]), (24, 0))
        self.assertEqual((kept["set"], kept["still set"]), (0, 0))

    def test_each_device_its_own(self):
        kept, _ = self.kept("devices", CMPSIM_DEVICES="2")
        self.assertEqual(kept, {"device 0": 8, "device 1": 16, "first": 8, "second": 0,
                                "by a stream of the second": 4})

    def test_whatever_lacks_memory_finds_it(self):
        for settings in ({}, {"CMP_ASYNC_KEEP": "900M"}):
            with self.subTest(**settings):
                kept, within = self.kept("full", **settings)
                self.assertEqual(set(kept.values()), {600})
                # cuMemCreate and cudaStreamCreate; to cudaMalloc and another pool the driver gives it
                # itself. And what followed cudaMalloc: the pool kept its block.
                self.assertEqual(within.process["out_of_memory_rescues"], 3)
                self.assertGreaterEqual(within.process["kept_released_bytes"], 2 * (600 << 20))

    def test_nothing_while_memory_is_scarce(self):
        self.real = {960}
        self.assertEqual(self.kept("scarce")[0], {"kept": 960})

    def test_beside_managed_memory(self):
        self.assertEqual(self.kept("managed")[0], {"before": 8, "beside": 0, "kept beside": 0})

    def test_it_ages(self):
        def ages(milliseconds, way, **env):
            return self.kept("ages", milliseconds, way, preload=PATIENT, **env)

        for way, idle, aged in (("sleeps", 16, 0), ("uses", 16, 16), ("part", 160, 16)):
            with self.subTest(way=way):
                kept, within = ages(LONG_MS, way, **SHORT)
                self.assertEqual(kept, {"idle": idle, "aged": aged})
                self.assertEqual(within.process["kept_aged_bytes"] >> 20, idle - aged)
        kept, _ = ages(200, "sleeps", CMP_DECAY="3600s")
        self.assertEqual(kept, {"idle": 16, "aged": 16})
        kept, _ = ages(LONG_MS, "sleeps", CMP_DECAY="off")
        self.assertEqual(kept, {"idle": 16, "aged": 16})
        # In the program's own calls alone.
        for way, idle, aged in (("sleeps", 16, 16), ("part", 160, 16)):
            kept, _ = ages(LONG_MS, way, CMP_DECAY="oncall:300ms")
            self.assertEqual(kept, {"idle": idle, "aged": aged})

    def test_captures(self):
        self.real = {2}
        kept, within = self.kept("captures")
        self.assertEqual(kept, {"kept": 102})
        self.assertEqual(within.results.count("end of the capture: 0"), 3)

    def test_a_capture_that_begins_meanwhile(self):
        kept, within = self.kept("begins")
        self.assertEqual(kept, {"began": 1})
        self.assertIn("end of the capture: 0, last error 0\n", within.results)

    def test_drivers_functions(self):
        kept, _ = self.kept("driver")
        self.assertEqual(kept, {"from the pool": 8, "from the current one": 24, "asked": 0})

    def test_stepping_aside(self):
        kept, _ = self.kept("aside")
        self.assertEqual(kept, {"before": 8, "aside": 0})

    def test_a_threshold_set_meanwhile(self):
        self.assertEqual(self.kept("race")[0], {"kept": 0})

    def test_threads(self):
        for seed in (0, 1, 2):
            with self.subTest(seed=seed):
                _, within = self.kept("threads", 300, CMPSIM_SEED=seed, CMP_DECAY="20ms")
                self.assertGreater(within.process["kept_pools"], 0)

    @ONE_THREAD
    def test_ends(self):
        for way in ("return", "exit") if "thread" in SANITIZE else ("return", "exit", "fork"):
            for _ in range(4):
                with self.subTest(way=way):
                    self.kept("ends", way, CMP_DECAY="20ms")

    def test_old_drivers(self):
        """Before 11.2 there are no such pools."""
        within = run("async_keep", ["calls"], env=SMALL | {"CMPSIM_FAIL": "cuMemPoolSetAttribute:1+:801"})
        self.assert_ok(within)
        self.assertEqual(within.process["kept_pools"], 0)


if __name__ == "__main__":
    main()
