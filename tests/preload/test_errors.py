"""Wrong and unusual calls: the same results and the same last errors as without the preload."""

from preload import TestCase, main


class Errors(TestCase):
    def test_first_call_is_wrong(self):
        self.run_both("errors", ["first"])

    def test_allocations(self):
        without, within = self.run_both("errors", ["allocations"])
        self.assertIn("cudaMalloc(NULL, 16): 1, last error 1", without.results)
        self.assertIn("impossible): 2, last error 2", without.results)
        self.assert_served(within)

    def test_frees(self):
        without, within = self.run_both("errors", ["frees"])
        self.assertIn("double free: 1, last error 1", without.results)
        self.assert_served(within)
        self.assertGreater(within.process["double_frees"], 10)

    def test_other_allocation_calls(self):
        without, within = self.run_both("errors", ["others"])
        self.assertIn("cudaMallocManaged: 0", without.results)
        self.assertGreater(within.process["foreign_frees"], 5)

    def test_asynchronous_frees(self):
        without, within = self.run_both("errors", ["async"])
        self.assertIn("hazards 0, misuse 0", without.results)
        self.assert_served(within)
        self.assertGreaterEqual(within.process["unpooled_blocks"], 4)

    def test_rescued_allocation(self):
        """The failures that the program does not see leave no error behind, and none disappears."""
        without, within = self.run_both("errors", ["rescue"], env={"CMPSIM_MEMORY": "64M"})
        self.assertIn("an allocation that needs releases: 0, last error 0", without.results)
        self.assertIn("an allocation that needs releases: 0, last error 1", without.results)
        # Each time, and the first one after what did not fit, which released nothing.
        self.assertEqual(within.process["out_of_memory_rescues"], 3)

    def test_other_failures(self):
        """Failures that are no lack of memory, with and without an older error pending."""
        without, _ = self.run_both("errors", ["other-failures"])
        self.assertEqual(without.results.count("cudaMalloc: 46, last error 46"), 6)
        self.assertEqual(without.results.count("impossible: 2, last error 2"), 9)


if __name__ == "__main__":
    main()
