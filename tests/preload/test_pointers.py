"""What is said of pointers, and given to others: the same as without the preload."""

from preload import OLD_DRIVER, TestCase, main


class Pointers(TestCase):
    def test_walk(self):
        """New, recycled and larger recycled blocks; their ends; freed ones."""
        for env in ({}, {"CMP_FREE_SYNC": "order"}, {"CMP_SLACK": "0%"}, OLD_DRIVER):
            with self.subTest(env=env):
                without, within = self.run_both("pointers", ["walk"], env)
                self.assertEqual(without.results.count("ids, asked again: same, same"), 15)
                self.assertEqual(without.results.count("ids of the next: grew, same"), 8)
                self.assertEqual(without.results.count("ids of the next: grew, grew"), 7)
                self.assertIn("runtime 0 type 0 device -2, device pointer 0, host pointer itself",
                              without.results)
                self.assert_served(within, 20)

    def test_refused_frees(self):
        """A cudaFreeAsync that fails leaves the block alone, and the accounts."""
        without, within = self.run_both("pointers", ["refused-frees"])
        self.assertIn("cudaFreeAsync, refused: 801", without.results)
        self.assertNotIn("ids grew", without.results)
        self.assert_served(within)
        self.assertEqual(within.process["unpooled_blocks"], 4)
        self.assertEqual(within.totals["live_blocks"], 0)

    def test_exports(self):
        without, within = self.run_both("pointers", ["exports"])
        self.assertEqual(without.results.count("all: 0,"), 8)
        # Of a small block the chunk that it is in.
        self.assertEqual(without.results.count("one page more: 0,"), 3)
        self.assertEqual(without.results.count("one page more: 1,"), 5)
        self.assert_served(within)


if __name__ == "__main__":
    main()
