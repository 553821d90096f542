"""What the pool does not serve: the driver's answers, the driver's calls, and room when it is needed."""

from preload import OLD_DRIVER, TestCase, main, numbers, run

# Each with 1 GiB of device memory; the rest takes no device memory when it is made.
ROOM = [
    "async", "async, per thread", "from pool", "from pool, per thread",
    "array", "array, runtime", "array, 3D", "mipmapped", "physical", "pitch", "3D",
]


class Untouched(TestCase):
    def test_calls(self):
        """The same results, attributes, sizes and ends; and every call reached the driver."""
        for env in ({}, {"CMPSIM_SEED": "1"}, {"CMPSIM_SEED": "2"}, OLD_DRIVER,
                    {"CMP_MODE": "observe"}):
            with self.subTest(env=env):
                # Else what the driver's pools keep is in use, to the simulator.
                env = {**env, "CMP_ASYNC_KEEP": "off"}
                without, within = self.run_both("untouched", ["calls"], env)
                self.assertIn("hazards 0, misuse 0", without.results)
                self.assertNotIn("made: 2", without.results)
                real = {n: v for n, v in without.notes.items() if "MiB" in n}
                self.assertGreater(len(real), 60)
                self.assertNotIn("0", real.values())
                self.assertEqual(real, {n: v for n, v in within.notes.items() if "MiB" in n})
                if "CMP_MODE" not in env:
                    served = int(within.notes["served afterwards"].split()[0])
                    self.assertGreaterEqual(served, 19)

    def test_room(self):
        for kind in ROOM:
            for env in ({}, {"CMPSIM_SEED": "2"}):
                with self.subTest(kind=kind, env=env):
                    without, within = self.run_both(
                        "untouched", ["room", kind, 512], {"CMPSIM_MEMORY": "1G"} | env
                    )
                    self.assertIn("made: 0, last error 0\n", without.results)
                    self.assertIn("cudaMalloc: 0, last error 0\n", without.results)
                    self.assertGreaterEqual(within.process["out_of_memory_rescues"], 1)

    def test_no_room(self):
        """What does not fit without the pool fails with the driver's error, and the pool goes on."""
        for kind in ROOM:
            with self.subTest(kind=kind):
                without, _ = self.run_both(
                    "untouched", ["room", kind, 1100], {"CMPSIM_MEMORY": "1G"}
                )
                self.assertIn("made: 2, ", without.results)

    def test_room_for_managed_memory(self):
        """Managed memory takes the device's only when it is used: the call alone is made to fail."""
        arguments = ["fails-once", "cuMemAllocManaged", "managed"]
        env = {"CMPSIM_MEMORY": "1G"}  # so little that it may be short of it
        without = run("untouched", arguments, preload=False, env=env)
        within = run("untouched", arguments, env=env)
        self.assertEqual(without.notes["made"], "2")
        self.assertEqual(within.notes["made"], "0")
        self.assertEqual(within.notes["last error"], "0")
        self.assertGreater(int(within.notes["real frees meanwhile"]), 0)

    def test_green_contexts(self):
        for env in ({}, {"CMPSIM_SEED": "1"}, {"CMPSIM_SEED": "2"}):
            with self.subTest(env=env):
                without, within = self.run_both("untouched", ["green"], env)
                self.assertIn("wrong words 0\nhazards 0, misuse 0", without.results)
                self.assertEqual(without.results.count("freed 1\n"), 16)
                for when, real in within.notes.items():
                    allocations, frees, of = numbers(real)
                    if when == "real before":
                        self.assertLess(allocations, 4)
                    else:
                        self.assertEqual((allocations, frees), (of, of), when)

    def test_room_beside_green_contexts(self):
        without, _ = self.run_both("untouched", ["green-room"], {"CMPSIM_MEMORY": "1G"})
        self.assertIn("768 MiB of physical memory: 0", without.results)

    def test_streams_of_green_contexts(self):
        """Without the green context's own context the pool serves, and its fences cover them."""
        for env in ({}, {"CMPSIM_SEED": "1"}, {"CMPSIM_SEED": "2"}):
            with self.subTest(env=env):
                without, within = self.run_both("untouched", ["green-streams"], env)
                self.assertIn("wrong words 0\nhazards 0, misuse 0", without.results)
                self.assert_served(within, 100)

    def test_the_last_reference_is_a_green_contexts(self):
        without, within = self.run_both("untouched", ["green-last"])
        self.assertEqual(without.results.count("active after it: 0, allocations left: 0\n"), 3)
        self.assertEqual(within.process["contexts_dropped"], 3)
        self.assertEqual(within.process["reserved_bytes"], 0)


if __name__ == "__main__":
    main()
