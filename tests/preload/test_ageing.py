"""CMP_DECAY: idle memory goes back to the driver, whatever the program does meanwhile."""

import re

from preload import PATIENT, SANITIZE, TestCase, main, run

CLEAN = "hazards 0, misuse 0"
SHORT = {"CMP_DECAY": "300ms"}
LONG_MS = 1500  # more than that and its ticks; of a clock that waits for the program


class Ageing(TestCase):
    def aged(self, args, env, code=0, preload=True):
        within = run("ageing", args, env=env, preload=preload)
        self.assert_ok(within, code)
        return within

    def told(self, within, when):
        """Blocks that are held for real, threads, and whether the pool's is among them."""
        found = re.fullmatch(r"(-?\d+) held, (\d+) threads, the pool's (\d)", within.notes[when])
        return tuple(map(int, found.groups()))

    def test_a_program_that_sleeps(self):
        within = self.aged(["sleeps", LONG_MS], SHORT, preload=PATIENT)
        _, threads, ours = self.told(within, "at first")
        self.assertEqual(ours, 0)
        held, more, ours = self.told(within, "idle")
        self.assertGreaterEqual(held, 20)
        self.assertEqual(ours, 1)
        held, at_last, ours = self.told(within, "aged")
        self.assertEqual((held, ours), (0, 0))
        self.assertEqual(more, at_last + 1)
        if "thread" not in SANITIZE:  # its runtime has a thread, too
            self.assertEqual(at_last, threads)
        self.assertEqual(within.process["contexts_dropped"], 0)
        self.assertIn(CLEAN, within.results)

    def test_not_before_its_time(self):
        within = self.aged(["sleeps", 200], {}, preload=PATIENT)
        self.assertGreaterEqual(self.told(within, "aged")[0], 20)

    def test_each_device_its_own(self):
        """What one device uses keeps nothing of another one's; the report tells them apart."""
        within = self.aged(["devices", LONG_MS], SHORT | {"CMPSIM_DEVICES": "2"}, preload=PATIENT)
        held = {when: tuple(map(int, re.fullmatch(r"(\d+) and (\d+) held", said).groups()))
                for when, said in within.notes.items()}
        self.assertGreaterEqual(min(held["idle"]), 20)
        self.assertEqual(held["one device rests"], (0, 1))
        self.assertEqual(held["both rest"], (0, 0))
        devices = within.stats["devices"]
        self.assertEqual([device["device"] for device in devices], [0, 1])
        for device in devices:
            self.assertEqual(device["contexts"], 1)
            self.assertEqual(device["reserved_bytes"], 0)
            self.assertGreaterEqual(device["live_peak_bytes"], 6 * (40 << 20))
            self.assertGreaterEqual(device["bound_bytes"], device["live_peak_bytes"])

    def test_off(self):
        within = self.aged(["sleeps", LONG_MS, "alone"], {"CMP_DECAY": "off"}, preload=PATIENT)
        self.assertEqual(self.told(within, "aged"), self.told(within, "idle"))
        self.assertEqual(self.told(within, "aged")[2], 0)

    def test_in_the_programs_own_calls(self):
        """Where no thread is wanted: nothing while the program sleeps, then in its frees."""
        env = {"CMP_DECAY": "oncall:300ms"}
        within = self.aged(["sleeps", LONG_MS, "alone"], env, preload=PATIENT)
        self.assertEqual(self.told(within, "aged"), self.told(within, "idle"))
        self.assertEqual(self.told(within, "aged")[2], 0)
        within = self.aged(["calls", 300], env, preload=PATIENT)
        self.assertGreaterEqual(self.told(within, "before")[0], 20)
        held, _, ours = self.told(within, "after")
        self.assertLessEqual(held, 2)
        self.assertEqual(ours, 0)

    def test_what_is_used_stays(self):
        within = self.aged(["uses", 1500], SHORT, preload=PATIENT)
        self.assertLess(within.process["real_malloc_calls"], 60)
        self.assertGreaterEqual(self.told(within, "used")[0], 20)

    def test_a_little_over_the_bound(self):
        """No call of the program's pays for it where the pool has a thread, which may have the ticks
        of page-locked memory beside its own."""
        bound = 400 * 115 // 100 + 256
        for decay, host, ours in (("10s", "off", True), ("10s", "on", True), ("off", "on", False)):
            with self.subTest(decay=decay, host=host):
                env = {"CMP_DECAY": decay, "CMP_HOST": host, "CMPSIM_MEMORY": "16G"}
                within = self.aged(["bound", bound, 20_000 if ours else 200], env)
                self.assertIn("over the bound: 0\n", within.results)
                own, others = map(int, re.findall(r"\d+", within.notes["released"]))
                self.assertEqual((own == 0, others != 0), (ours, ours), within.notes)

    def test_beside_kernels_that_stay(self):
        """A free that waits for the kernel, or holds up the next launch, would never end."""
        frees = 0  # a busy machine may leave none in some of the runs
        for mode in ("auto", "order", "none"):
            for seed in (0, 1, 2):
                for decay, rounds, sleeps in (("20ms", 6, 40), ("60ms", 3, 120)):
                    with self.subTest(mode=mode, seed=seed, decay=decay):
                        env = {"CMP_DECAY": decay, "CMP_FREE_SYNC": mode, "CMPSIM_SEED": seed}
                        within = self.aged(["kernels", rounds, sleeps], env)
                        self.assertIn(CLEAN, within.results)
                        frees += within.process["real_free_calls"]
        self.assertGreater(frees, 20)

    def test_captures(self):
        for mode in ("wait", "auto", "none"):
            with self.subTest(mode=mode):
                env = SHORT | {"CMP_FREE_SYNC": mode}
                within = self.aged(["captures", LONG_MS], env, preload=PATIENT)
                held = [int(blocks) for blocks in
                        re.findall(r"# during a capture: (\d+) held", within.out)]
                self.assertEqual(len(held), 3)
                # What is retired without a fence stays: none is recorded during a capture.
                self.assertLessEqual(max(held), 1 if mode == "none" else 0)
                self.assertEqual(within.results.count("end of the capture: 0"), 3)
                self.assertIn(CLEAN, within.results)

    def test_threads(self):
        frees = 0
        for mode in ("auto", "order", "none"):
            for seed in (0, 1, 2):
                with self.subTest(mode=mode, seed=seed):
                    env = {"CMP_DECAY": "20ms", "CMP_FREE_SYNC": mode, "CMPSIM_SEED": seed}
                    within = self.aged(["threads", 400], env)
                    self.assertIn(CLEAN, within.results)
                    frees += within.process["real_free_calls"]
        self.assertGreater(frees, 20)

    def test_ends(self):
        for way, code in (("_exit", 3), ("exec", 0), ("fork", 4), ("reset", 0), ("return", 0)):
            if "thread" in SANITIZE and way == "fork":
                continue  # ThreadSanitizer hangs in children of processes with threads
            for _ in range(2 if SANITIZE else 8):
                with self.subTest(way=way):
                    env = {"CMP_DECAY": "20ms"}
                    if way == "exec":  # its report has no end
                        env["CMP_STATS"] = "off"
                    within = run("ageing", ["ends", way], env=env)
                    self.assertEqual(within.code, code, repr(within))
                    self.assertEqual(within.err, "")
                    if way in ("reset", "return"):
                        self.assertIn(CLEAN, within.results)


if __name__ == "__main__":
    main()
