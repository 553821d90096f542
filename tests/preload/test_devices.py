"""Several devices that use each other's memory, in every mode: contents, order, resets, reuse."""

from preload import OLD_DRIVER, ONE_THREAD, PROGRAMS, SANITIZE, TestCase, main, run

MODES = ("wait", "auto", "order", "none")
# Numbers of devices, and when they do their work: two kinds of chance, the second one lazy.
KINDS = ((3, 1, {}), (3, 2, {}), (2, 1, OLD_DRIVER))
# A sanitized build is slow.
if SANITIZE:
    KINDS = KINDS[:1]
    MODES = ("auto", "none")
ORDERED = tuple(mode for mode in MODES if mode != "none")
MANY = 500
CLEAN = "hazards 0, misuse 0"


class Devices(TestCase):
    def each(self, check, modes=MODES):
        """Calls `check` with every environment."""
        for devices, seed, driver in KINDS:
            for mode in modes:
                with self.subTest(devices=devices, seed=seed, mode=mode, old=bool(driver)):
                    check({"CMPSIM_DEVICES": devices, "CMPSIM_SEED": seed,
                           "CMPSIM_MEMORY": "512M", "CMP_FREE_SYNC": mode} | driver)

    def test_use(self):
        """The program waits for the devices that the real free does not wait for."""
        def check(env):
            for args in (["use", 1, MANY, 1], ["use", 2, MANY // 3, 3]):
                without, within = self.run_both("devices", args, env)
                self.assertIn("wrong words 0, last error 0\n" + CLEAN, without.results)
                self.assert_served(within)

        self.each(check)

    def test_use_pending(self):
        """It waits for none: blocks are not handed out under the work of any device."""
        def check(env):
            for args, pool in ((["use", 3, MANY, 1, "pending"], {}),
                               (["use", 3, MANY, 1, "pending"], {"CMP_BATCH_BYTES": "1"}),
                               (["use", 4, MANY // 3, 3, "pending"], {})):
                within = run("devices", args, env=env | pool)
                self.assert_ok(within)
                self.assertIn("wrong words 0, last error 0\n" + CLEAN, within.results)
                self.assert_served(within)

        self.each(check)

    def test_order(self):
        """What another device reads after a free is what was written before it."""
        def check(env):
            without, _ = self.run_both("devices", ["order"], env)
            self.assertEqual(without.results.count("right"), 24 * env["CMPSIM_DEVICES"])
            self.assertNotIn("stale", without.results)

        self.each(check, ORDERED)

    def test_apart(self):
        """No thread waits for ever for what another one's free left."""
        def check(env):
            without, _ = self.run_both("devices", ["apart"], env)
            self.assertEqual(without.results.count("done"), 3)

        self.each(check)

    def test_overwrite(self):
        """A free keeps the order of the copies that run on its device, on whichever's stream."""
        def check(env):
            without, _ = self.run_both("devices", ["overwrite"], env)
            self.assertEqual(without.results.count("right"), 4 * env["CMPSIM_DEVICES"])
            self.assertNotIn("overwritten", without.results)

        self.each(check, ORDERED)

    @ONE_THREAD
    def test_copies(self):
        """A block is not handed out while another device, idle otherwise, copies into it."""
        def check(env):
            within = run("devices", ["copies"], env=env)
            self.assert_ok(within)
            self.assertIn(CLEAN, within.results)
            self.assert_served(within)

        self.each(check)

    @ONE_THREAD
    def test_sources(self):
        """Default streams of two devices are two streams."""
        def check(env):
            without, within = self.run_both("devices", ["sources"], env)
            self.assertIn(CLEAN, without.results)
            if "CMPSIM_DRIVER_VERSION" not in env:  # an old one's frees wait once for many
                self.assert_served(within)

        self.each(check)

    def test_short(self):
        """Memory is not given back while another device, idle otherwise, copies into it."""
        def check(env):
            without, within = self.run_both("devices", ["short"], env)
            self.assertIn(CLEAN, without.results)
            self.assertGreater(within.totals["blocks_released"], 0)

        self.each(check)

    @ONE_THREAD
    def test_frees(self):
        """Of the simulated CUDA, which is not to wait for more than two H200s did."""
        env = {"CMPSIM_DEVICES": "2", "CMPSIM_CALL_NS": "10"}  # the copies last
        without = run("devices", ["frees"], preload=False, env=env)
        self.assertEqual(without.results, "another small block: pending\na large block: pending\n"
                                          f"the small block: waited\n{CLEAN}\n")

    def test_host(self):
        """A copy to the host runs where its source is, on whichever device's stream."""
        def check(env):
            without, _ = self.run_both("devices", ["host"], env)
            self.assertEqual(without.results.count("right"), 3 * env["CMPSIM_DEVICES"])

        self.each(check, ("wait", "auto"))

    def test_reset(self):
        """Of one device, with copies from and to another one pending."""
        def check(env):
            without, within = self.run_both("devices", ["reset"], env)
            self.assertIn("wrong words 0, last error 0\n" + CLEAN, without.results)
            self.assertGreaterEqual(within.process["contexts_dropped"], env["CMPSIM_DEVICES"])
            if "CMPSIM_DRIVER_VERSION" not in env:  # an old one's frees wait once for many
                served = within.notes["served the device that was not reset"]
                self.assertGreaterEqual(int(served.split()[0]), 15)

        self.each(check)

    def test_ends(self):
        """A context that is being ended still works: what it writes into is not handed out."""
        def check(env):
            within = run("devices", ["ends"], env=env)
            self.assert_ok(within)
            self.assertEqual(within.results.count(": last error 0\n"), 4)
            self.assertIn(CLEAN, within.results)

        self.each(check)

    @ONE_THREAD
    def test_stays(self):
        """A kernel that stays on one device keeps those from nothing that it cannot reach."""
        def check(env):
            _, within = self.run_both("devices", ["stays"], env)
            self.assertGreaterEqual(within.totals["hit_rate"], 0.9)
            # Of one that it can reach, or may reach, nothing becomes ready.
            for may in ("access", "box"):
                _, within = self.run_both("devices", ["stays", may], env)
                self.assertLess(within.totals["hit_rate"], 0.1)

        if "CMPSIM_DRIVER_VERSION" not in KINDS[0][2]:
            for mode in MODES:
                with self.subTest(mode=mode):
                    check({"CMPSIM_DEVICES": 2, "CMPSIM_MEMORY": "2G", "CMP_FREE_SYNC": mode})

    def test_guest(self):
        """The work of a device that never allocates counts, too."""
        def check(env):
            # A real free for the bound would not wait for the guest, as without the pool.
            within = run("devices", ["guest"], env=env | {"CMP_RESERVE": "1.15x+256M"})
            self.assert_ok(within)
            self.assertIn(CLEAN, within.results)
            self.assertEqual(within.process["contexts"], env["CMPSIM_DEVICES"])
            if "CMPSIM_DRIVER_VERSION" not in env:  # an old one's frees wait once for many
                self.assert_served(within)

        self.each(check)

    def test_notices(self):
        """A pool that hands out blocks at once is seen."""
        def check(env):
            result = run("devices", ["use", 3, MANY, 1, "pending"],
                         preload=[PROGRAMS / "careless_pool.so"], env=env | {"CARELESS": "reuse"})
            self.assertNotIn(CLEAN, result.results)

        if SANITIZE:
            self.skipTest("the races are real ones")
        self.each(check, ("none",))


if __name__ == "__main__":
    main()
