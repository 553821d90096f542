"""Pitched memory: served from the first call on, and as the driver would have given it."""

from preload import MODE, TestCase, main


class Pitched(TestCase):
    def test_it_alone(self):
        """Nothing else is allocated in the process: its first call starts the pool."""
        for program in ("pitched", "pitched_static"):
            for way in ("2D", "3D", "driver"):
                with self.subTest(program=program, way=way):
                    without, within = self.run_both(program, [way])
                    self.assertIn("5000 x 64: 0, pitch 5120\n", without.results)
                    self.assertIn("hazards 0, misuse 0", without.results)
                    self.assertIn("while capturing, mode 0: 900, last error ", without.results)
                    self.assertIn("element 0: 1\n", without.results)
                    self.assertEqual(without.notes["real allocations of 100"], "100")
                    self.assert_served(within, 110)
                    if MODE == "wait":
                        self.assertLess(int(within.notes["real allocations of 100"]), 10)

    def test_observed(self):
        for way in ("2D", "3D", "driver"):
            with self.subTest(way=way):
                without, within = self.run_both("pitched", [way], {"CMP_MODE": "observe"})
                self.assertEqual(without.notes, within.notes)
                self.assertEqual(within.totals["requests"], 175)
                self.assertEqual(within.totals["live_blocks"], 0)

    def test_full(self):
        """Where nothing fits any more the error is the driver's, and idle blocks make room."""
        for way in ("2D", "3D", "driver"):
            with self.subTest(way=way):
                without, within = self.run_both("pitched", [way], {"CMPSIM_MEMORY": "150M"})
                self.assertIn("1048576 x 64: 2, pitch", without.results)
                self.assert_served(within)


if __name__ == "__main__":
    main()
