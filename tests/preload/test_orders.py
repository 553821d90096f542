"""Directed programs for what cudaFree gives: the same with the preload, on every kind of device."""

from preload import PROGRAMS, SANITIZE, TestCase, main, run
from test_schedules import DEVICES, FREE_SYNC, POOLS

# What each value of CMP_FREE_SYNC promises.
REUSE = ("reuse", "stamp", "event-reuse", "capture")
ORDER = (*REUSE, "second-stream", "synchronous-copy")
HOST = (*ORDER, "host")
SLOW = ("stamp", "event-reuse")  # threads that mostly wait for each other: fewer of these
PROMISES = {"wait": HOST, "auto": HOST, "order": ORDER, "none": REUSE}


class Orders(TestCase):
    def test_promises(self):
        for scenario in HOST:
            slow = scenario in SLOW
            if slow and "thread" in SANITIZE:
                continue  # their kernels write one block from two streams at once
            args = [scenario, "1"] if slow else [scenario]
            for device in DEVICES[:2] if slow or SANITIZE else DEVICES:
                without = run("orders", args, preload=False, env={"CMPSIM_SEED": device})
                self.assert_ok(without)
                for mode in sorted(mode for mode in FREE_SYNC if scenario in PROMISES[mode]):
                    if mode == "order" and slow:
                        continue  # `auto` records its fences the same way
                    few = slow or SANITIZE or mode == "order"
                    for pool in POOLS[:2] if few else POOLS:
                        env = {"CMP_FREE_SYNC": mode, "CMPSIM_SEED": device, **pool}
                        with self.subTest(scenario=scenario, env=env):
                            within = run("orders", args, env=env)
                            self.assertEqual(without.results, within.results, within.err)
                            self.assertEqual(within.err, "")
                            # On a lazy device hardly any fence passes.
                            eager = mode == "wait" or device % 2 == 1
                            self.assert_served(within, 1 if eager else 0)

    def test_destroyed_context(self):
        """A context that another thread destroys while a free deals with it."""
        for mode in sorted(FREE_SYNC):
            for device in DEVICES:
                env = {"CMP_FREE_SYNC": mode, "CMPSIM_SEED": device}
                with self.subTest(env=env):
                    _, within = self.run_both("orders", ["destroyed-context"], env)
                    self.assertGreater(int(within.notes["destroyed meanwhile"]), 0)

    def test_careless_pools(self):
        """Each scenario finds out the pool that leaves away what it is about."""
        if SANITIZE:
            self.skipTest("the races are real ones")
        careless = PROGRAMS / "careless_pool.so"
        for leaves, scenarios in (
            ("reuse", ("reuse", "stamp", "event-reuse", "second-stream", "synchronous-copy", "host")),
            ("order", ("second-stream", "synchronous-copy", "host")),
            ("host", ("host",)),
            ("stamp", ("stamp",)),
            ("early", ("stamp", "event-reuse")),
            ("nothing", ()),
        ):
            for scenario in HOST:
                if scenario == "capture" or (leaves in ("stamp", "early") and scenario in
                                             ("second-stream", "synchronous-copy", "host")):
                    continue  # the careless pool knows nothing of it
                for device in (0, 2):
                    with self.subTest(leaves=leaves, scenario=scenario, device=device):
                        env = {"CARELESS": leaves, "CMPSIM_SEED": device}
                        args = [scenario, "1"] if scenario in SLOW else [scenario]
                        result = run("orders", args, preload=[careless], env=env)
                        self.assert_ok(result, 1 if scenario in scenarios else 0)


if __name__ == "__main__":
    main()
