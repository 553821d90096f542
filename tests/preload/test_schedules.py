"""Random schedules of CUDA calls: what the real cudaFree gives, and no memory reused too early.

The same schedule gives the same contents and results without the preload and with it, whenever the
device does its work (CMPSIM_SEED). CMP_TEST_SEED chooses the schedules, CMP_TEST_SCALE how many
operations they have (1: as usual). One subject: test_schedules.py Schedules.test_order
"""

import os
import time

from preload import OLD_DRIVER, PROGRAMS, SANITIZE, TestCase, main, run

SEED = int(os.environ.get("CMP_TEST_SEED", "1"))
# As it is: more than five million operations in all.
SCALE = float(os.environ.get("CMP_TEST_SCALE", "1")) * (0.02 if SANITIZE else 0.2)

# The values of CMP_FREE_SYNC.
FREE_SYNC = {"wait", "auto", "order", "none"}

# Pools of all sizes: small caches move blocks between threads at once.
POOLS = (
    {},
    {"CMP_BATCH_BYTES": "1"},
    {"CMP_THREAD_CACHE_BYTES": "8K"},
    {"CMP_RESERVE": "0"},
    {"CMP_THREAD_CACHE_MAX_BLOCK": "1K", "CMP_TIER_STEPS": "1"},
    {"CMP_MAX_BLOCK": "16K"},
    {"CMP_DECAY": "10ms"},
)
# Of the device: exact times, three kinds of chance, two of them lazy.
DEVICES = (1, 2) if SANITIZE else (0, 1, 2, 4)


class Schedules(TestCase):
    def setUp(self):
        self.operations = 0
        self.begin = time.monotonic()

    def tearDown(self):
        print(
            f"seed {SEED}: {self.operations} operations with the preload, "
            f"{time.monotonic() - self.begin:.1f} s",
            flush=True,
        )

    def schedule(self, seed, mode, operations, *args):
        operations = max(2000, int(operations * SCALE))
        return ["--seed", seed, "--operations", operations, "--mode", mode, *args]

    def run_schedule(self, args, env, preload=True):
        """One run; everything that the program checks must be right."""
        result = run("schedules", args, preload=preload, env=env, stats=False, limit_s=120)
        self.assert_ok(result)
        self.assertEqual(result.err, "")
        if preload:
            self.operations += int(result.notes["operations"].split()[0])
        return result

    def settings(self, mode, number, device):
        return {"CMP_FREE_SYNC": mode, "CMPSIM_SEED": device, **POOLS[number % len(POOLS)]}

    def compare(self, mode, schedules, operations, *args, env=None):
        """One thread: the contents, and the results of all calls, are the real ones."""
        for number in range(schedules):
            seed = SEED * 1000 + number
            schedule = self.schedule(seed, mode, operations, *args)
            expected = None
            for device in DEVICES:
                settings = self.settings(mode, number, device) | (env or {})
                with self.subTest(seed=seed, device=device):
                    if expected is None or number == 0:  # the schedule itself depends on no time
                        without = self.run_schedule(schedule, settings, preload=False)
                        expected = expected or without.results
                        self.assertEqual(expected, without.results)
                    within = self.run_schedule(schedule, settings)
                    self.assertEqual(expected, within.results)

    def check(self, mode, schedules, operations, *args, env=None, pool=0):
        """Results that depend on chance: what the program checks by itself is right. `pool`: the first
        of POOLS."""
        for number in range(schedules):
            seed = SEED * 1000 + 500 + number
            schedule = self.schedule(seed, mode, operations, *args)
            for device in DEVICES:
                settings = self.settings(mode, pool + number, device) | (env or {})
                with self.subTest(seed=seed, device=device):
                    if number == 0 and not SANITIZE:
                        self.run_schedule(schedule, settings, preload=False)
                    self.run_schedule(schedule, settings)

    def test_wait(self):
        self.compare("wait", 6, 70000)
        self.compare("wait", 1, 20000, env=OLD_DRIVER)

    def test_auto(self):
        self.compare("auto", 6, 100000)
        self.compare("auto", 1, 20000, env=OLD_DRIVER)

    def test_order(self):
        self.compare("order", 6, 100000)

    def test_none(self):
        self.compare("none", 6, 100000)

    def test_threads(self):
        for i, mode in enumerate(("none", "order", "auto", "wait")):  # all of POOLS among them
            self.check(mode, 2, 100000, "--threads", 4, pool=2 * i)
            self.check(mode, 2, 100000, "--interleave", "--small", pool=2 * i + 1)

    def test_captures(self):
        for mode in ("none", "order", "auto", "wait"):
            self.compare(mode, 2, 60000, "--captures")
            self.check(mode, 1, 60000, "--captures", "--threads", 3)
            self.check(mode, 1, 60000, "--captures", "--interleave")
        self.compare("order", 1, 20000, "--captures", env=OLD_DRIVER)

    def test_failures(self):
        for mode in ("none", "order", "auto", "wait"):
            self.check(mode, 2, 50000, "--failures", 1)
            self.check(mode, 1, 50000, "--failures", 20)
            self.check(mode, 1, 50000, "--failures", 3, "--threads", 3)
            self.check(mode, 1, 50000, "--failures", 3, "--interleave")
            self.check(mode, 1, 50000, "--failures", 3, "--captures")

    def test_contexts(self):
        for mode in ("none", "order", "auto", "wait"):
            self.compare(mode, 2, 60000, "--contexts", 3)
            self.compare(mode, 1, 60000, "--contexts", 4, "--captures")

    def test_context_threads(self):
        """Contexts that one thread destroys while others free blocks of their own."""
        for mode in ("none", "order", "auto", "wait"):
            self.check(mode, 2, 60000, "--contexts", 3, "--threads", 3)

    def test_careless_pools(self):
        """The schedules find out a pool that gives less than their mode asks for."""
        if SANITIZE:
            self.skipTest("the races are real ones")
        careless = PROGRAMS / "careless_pool.so"
        for leaves, wrong, right in (
            ("reuse", ("none", "order", "auto", "wait"), ()),
            ("order", ("order", "auto", "wait"), ("none",)),
            ("host", ("auto", "wait"), ("none", "order")),
            ("nothing", (), ("none", "order", "auto", "wait")),
        ):
            for mode in wrong + right:
                for device in DEVICES:
                    with self.subTest(leaves=leaves, mode=mode, device=device):
                        env = {"CARELESS": leaves, "CMPSIM_SEED": device}
                        schedule = self.schedule(SEED, mode, 30000)
                        result = run("schedules", schedule, preload=[careless], env=env)
                        self.assertEqual(result.code, 1 if mode in wrong else 0, repr(result))
        for leaves, code in (("stamp", 1), ("early", 1), ("fences", 0)):
            env = {"CARELESS": leaves}
            schedule = self.schedule(SEED, "none", 200000, "--interleave", "--small")
            with self.subTest(leaves=leaves):
                result = run("schedules", schedule, preload=[careless], env=env)
                self.assertEqual(result.code, code, repr(result))

    def test_free_sync_values(self):
        """FREE_SYNC above is what the preload knows."""
        for mode in ("wait", "auto", "order", "none"):
            with self.subTest(mode=mode):
                result = run("schedules", self.schedule(1, "wait", 100), env={"CMP_FREE_SYNC": mode})
                self.assertEqual("CMP_FREE_SYNC" not in result.err, mode in FREE_SYNC, result.err)


if __name__ == "__main__":
    main()
