"""Directed programs for what cudaFree gives: the same with the preload, on every kind of device."""

from preload import PROGRAMS, TestCase, main, run
from test_schedules import DEVICES, FREE_SYNC, POOLS

# What each value of CMP_FREE_SYNC promises.
REUSE = ("reuse", "stamp", "event-reuse", "capture")
ORDER = (*REUSE, "second-stream", "synchronous-copy")
HOST = (*ORDER, "host")
PROMISES = {"wait": HOST, "auto": HOST, "order": ORDER, "none": REUSE}


class Orders(TestCase):
    def test_promises(self):
        for mode in sorted(FREE_SYNC):
            for scenario in PROMISES[mode]:
                for pool in POOLS:
                    for device in DEVICES:
                        env = {"CMP_FREE_SYNC": mode, "CMPSIM_SEED": device, **pool}
                        with self.subTest(scenario=scenario, env=env):
                            _, within = self.run_both("orders", [scenario], env)
                            self.assert_served(within, 1)

    def test_careless_pools(self):
        """Each scenario finds out the pool that leaves away what it is about."""
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
                for device in DEVICES:
                    with self.subTest(leaves=leaves, scenario=scenario, device=device):
                        env = {"CARELESS": leaves, "CMPSIM_SEED": device}
                        result = run("orders", [scenario], preload=[careless], env=env)
                        self.assert_ok(result, 1 if scenario in scenarios else 0)


if __name__ == "__main__":
    main()
