"""Threads that poll beside threads that free: the one who frees waits, as in the real call, and the
polls cost what they cost without the pool."""

from preload import SANITIZE, TestCase, main, run

AUTO = {"CMP_FREE_SYNC": "auto", "CMP_DECAY": "off"}
DEVICES = ("0", "1", "2")


class Polls(TestCase):
    def test_beside_frees(self):
        """A poll is one question and no wait, from the first one on: nothing is skipped beside it."""
        rounds = 20
        for device in DEVICES:
            with self.subTest(device=device):
                env = AUTO | {"CMPSIM_SEED": device}
                without, within = self.run_both("polls", ["beside", rounds], env)
                self.assertIn(f"ready after the frees: {10 * rounds}\n", without.results)
                polls = int(within.notes["polls"])
                self.assertEqual(polls, 30 * rounds, "before, during and after each free")
                self.assertEqual(int(within.notes["questions"]), polls)
                self.assertLess(int(within.notes["worst ns"]), 1_000_000)
                self.assertEqual(within.process["wait_watched"], rounds)
                waits = within.process["wait_calls"] - within.process["wait_unknown"]
                self.assertEqual(waits, rounds)
                self.assertEqual(within.process["paid_by_queries"], 0)
                self.assertEqual(within.process["skipped_waits"], 0)

    def test_who_stops_asking(self):
        """The first free that meets a mark waits; 10 ms later it has ended, if nobody asks again."""
        _, within = self.run_both("polls", ["ends"], AUTO)
        self.assertEqual(within.process["wait_watched"], 1)
        self.assertEqual(within.process["skipped_waits"], 2)

    def test_who_is_told(self):
        rounds = 60 if SANITIZE else 300
        for device in DEVICES:
            with self.subTest(device=device):
                env = AUTO | {"CMPSIM_SEED": device}
                result = run("polls", ["told", rounds], env=env)
                self.assert_ok(result)
                self.assertEqual(result.results, "wrong: 0\nhazards 0, misuse 0\n")
                self.assertGreater(int(result.notes["judged"]), 0)
                self.assertGreater(result.process["wait_watched"], 0)

    def test_without_waits(self):
        """The program sees it when nobody waits."""
        result = run("polls", ["told", 30], env={"CMP_FREE_SYNC": "order"})
        self.assert_ok(result)
        self.assertNotIn("wrong: 0\n", result.results)


if __name__ == "__main__":
    main()
