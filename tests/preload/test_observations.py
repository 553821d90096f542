"""What a host can see of a cudaFree that does not wait: nothing, under `wait` and `auto`; and where
there is nothing to be seen, `auto` does not wait.

One subject: test_observations.py Observations.test_auto
"""

from preload import OLD_DRIVER, SANITIZE, TestCase, main, run
from test_schedules import DEVICES, POOLS


class Scenario:
    """A line of `observations list`."""

    DEVICES = {
        "pageable-access": {"CMPSIM_PAGEABLE_ACCESS": "1"},
        "frees-that-do-not-wait": {"CMPSIM_MEMORY": "4G"},
        "take-pool-access": {"CMPSIM_DEVICES": "2"},
    }

    def __init__(self, line):
        self.expected, self.rule, self.name = line.split()

    def environment(self, *settings):
        """What the device of one scenario has and others have not."""
        env = self.DEVICES.get(self.name, {}).copy()
        for more in settings:
            env |= more
        return env


def all_scenarios():
    listed = run("observations", ["list"], preload=False)
    return [Scenario(line) for line in listed.out.splitlines()]


SCENARIOS = all_scenarios()
_real_results = {}


def real_results(scenario, device):
    """What is seen without a pool."""
    key = (scenario.name, device)
    if key not in _real_results:
        env = scenario.environment({"CMPSIM_SEED": device})
        _real_results[key] = run("observations", [scenario.name], preload=False, env=env)
    return _real_results[key]


class Observations(TestCase):
    def run_scenario(self, scenario, device, settings):
        """One run with the preload: everything as without it."""
        without = real_results(scenario, device)
        self.assert_ok(without)
        env = scenario.environment({"CMPSIM_SEED": device}, settings)
        within = run("observations", [scenario.name], env=env)
        self.assert_ok(within)
        self.assertEqual(without.results, within.results)
        self.assertEqual(within.err, "")
        return within

    def check(self, free_sync, devices, pools):
        for scenario in SCENARIOS:
            for device in devices:
                for pool in pools:
                    settings = {"CMP_FREE_SYNC": free_sync, **pool}
                    with self.subTest(scenario=scenario.name, device=device, settings=settings):
                        self.run_scenario(scenario, device, settings)

    def test_list(self):
        self.assertGreater(len(SCENARIOS), 90)
        self.assertEqual(len({scenario.name for scenario in SCENARIOS}), len(SCENARIOS))

    def test_auto_pools(self):
        self.check("auto", DEVICES[2:3], POOLS[1:])

    def test_wait(self):
        self.check("wait", DEVICES[1:3], POOLS[:2])

    def test_old_driver(self):
        for scenario in SCENARIOS:
            for free_sync in ("auto", "wait"):
                settings = OLD_DRIVER | {"CMP_FREE_SYNC": free_sync}
                with self.subTest(scenario=scenario.name, settings=settings):
                    self.run_scenario(scenario, 2, settings)

    def test_without_waits(self):
        """The scenarios prove something: without waits each look sees what is wrong."""
        for scenario in SCENARIOS:
            for free_sync in ("order", "none"):
                for device in DEVICES[1:3]:
                    env = scenario.environment({"CMP_FREE_SYNC": free_sync, "CMPSIM_SEED": device})
                    with self.subTest(scenario=scenario.name, env=env):
                        within = run("observations", [scenario.name], env=env)
                        self.assertEqual(within.err, "")
                        if scenario.expected == "quiet":
                            self.assert_ok(within)
                        elif scenario.rule == "pay_at_exit":
                            self.assertNotEqual(real_results(scenario, device).out, within.out)
                        else:
                            self.assert_ok(within, 1)
                            seen = int(within.notes["seen"])
                            self.assertGreater(seen, 0)
                            self.assertIn(f"wrong {seen}\n", within.results)

    def test_auto(self):
        """`auto` waits where it must, once where that is enough, and nowhere else."""
        for scenario in SCENARIOS:
            for device in DEVICES[1:] if SANITIZE else DEVICES:
                with self.subTest(scenario=scenario.name, device=device):
                    within = self.run_scenario(scenario, device, {"CMP_FREE_SYNC": "auto"})
                    waits = within.process["wait_calls"]
                    paid = sum(within.process[name] for name in
                               ("paid_by_queries", "paid_by_destruction", "paid_by_other_contexts",
                                "paid_at_exit"))
                    self.assertEqual(waits, self.reasons(within))
                    if scenario.expected == "quiet":
                        self.assertEqual((waits, paid), (0, 0), within.process)
                        self.assertNotIn("# still running: no", within.out)
                    elif scenario.rule == "ask_again":
                        self.assertEqual((waits, paid), (0, 0), within.process)
                    elif scenario.rule in self.PAID:
                        self.assertEqual(waits, 0, within.process)
                        self.assertGreaterEqual(within.process[self.PAID[scenario.rule]], 1)
                        self.assertEqual(within.process[self.PAID[scenario.rule]], paid)
                    elif scenario.expected == "one-wait":
                        self.assertEqual((waits, paid), (1, 0), within.process)
                    else:
                        self.assertGreaterEqual(waits, 1)
                    if scenario.rule in self.REASONS:
                        self.assertGreater(within.process[self.REASONS[scenario.rule]], 0)

    PAID = {
        "pay_before_queries": "paid_by_queries",
        "pay_before_destruction": "paid_by_destruction",
        "pay_at_exit": "paid_at_exit",
        "skip_ends_watch": "paid_by_queries",
    }
    # What the report says about the waits that a rule asks for.
    REASONS = {
        f"visible_{what}": f"wait_{what}"
        for what in ("copies", "host_functions", "graphs", "stream_memory", "managed", "mapped",
                     "pageable_access", "exports", "imports", "attributes")
    } | {"watched_frees_wait": "wait_watched", "watch_after_skip": "wait_watched"}

    @classmethod
    def reasons(cls, result):
        return sum(result.process[name] for name in {*cls.REASONS.values(), "wait_unknown"})


if __name__ == "__main__":
    main()
