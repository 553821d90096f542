"""Memory that copies and sets name: refused where the program has it no more, and only there."""

import unittest

from preload import PROGRAMS, SANITIZE, SIM, TestCase, main, run

STEPS = 60 if SANITIZE else 500
# How blocks come and go: kept; each really freed at once; given back by another thread.
SETTINGS = ({}, {"CMP_RESERVE": "0"}, {"CMP_RESERVE": "8M", "CMP_DECAY": "0.01s"})


class Named(TestCase):
    def each(self, scenario, threads=3, steps=STEPS):
        for seed, settings in enumerate(SETTINGS, start=1):
            mode = "none" if seed == 2 else "auto"
            with self.subTest(settings=settings, mode=mode):
                env = settings | {"CMPSIM_SEED": seed, "CMPSIM_MEMORY": "1G",
                                  "CMP_FREE_SYNC": mode}
                without, within = self.run_both("named", [scenario, seed, threads, steps], env)
                self.assertEqual(without.results, "copied, last error 0\nhazards 0, misuse 0\n")
                self.assertGreater(within.totals["blocks_made"], 0)

    def test_own(self):
        """Every kind of memory, at addresses that idle blocks had a moment ago."""
        self.each("own")

    def test_resets(self):
        """Contexts end meanwhile, and the driver gives their addresses to others."""
        self.each("resets", steps=STEPS // 2)

    @unittest.skipIf(SANITIZE, "sanitizers refuse RTLD_DEEPBIND")
    def test_past(self):
        """What somebody freed past the shim may be another's memory by now."""
        within = run("named", ["past"], env={"LD_LIBRARY_PATH": f"{SIM}:{PROGRAMS}"})
        self.assert_ok(within)
        self.assertEqual(within.results, 2 * "freed: 0\nset: 0, copied: 0\n")

    def test_wrong(self):
        """Others name what they have not."""
        self.each("wrong", steps=STEPS // 2)


if __name__ == "__main__":
    main()
