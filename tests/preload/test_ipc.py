"""IPC: a handle names the base and the size that it always named, and an exported block leaves the pool."""

from preload import TestCase, main


class Ipc(TestCase):
    def test_exports(self):
        without, within = self.run_both("ipc")
        self.assertEqual(without.results.count("names the block, 256 bytes"), 4)
        self.assertEqual(without.results.count("names the block, 5000 bytes"), 5)
        self.assertEqual(without.results.count("names the block, 16777216 bytes"), 4)
        self.assertEqual(without.results.count("left alone"), 12)
        self.assertNotIn("something else", without.results)
        self.assertEqual(without.results.count("really freed: yes"), 15)
        self.assert_served(within)
        self.assertEqual(within.process["unpooled_blocks"], 18)


if __name__ == "__main__":
    main()
