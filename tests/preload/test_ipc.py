"""IPC: a handle names the base that it always named, and an exported block leaves the pool."""

from preload import TestCase, main


class Ipc(TestCase):
    def test_exports(self):
        without, within = self.run_both("ipc")
        self.assertEqual(without.results.count("names the block"), 16)
        self.assertNotIn("something else", without.results)
        self.assertEqual(without.results.count("really freed: yes"), 12)
        self.assert_served(within)
        self.assertEqual(within.process["unpooled_blocks"], 13)


if __name__ == "__main__":
    main()
