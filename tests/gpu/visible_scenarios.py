"""What the host sees right after cudaFree: the scenarios of the program `visible`, each a process.

For the tests on a GPU and on the simulated CUDA alike.
"""

import collections
import concurrent.futures
import os
import pathlib

import programs

PROGRAM = str(programs.BUILD / "visible")
AT_ONCE = 8  # most of their time is the start of CUDA
Scenario = collections.namedtuple("Scenario", "without_wait name rule")


def answer(result: programs.Result) -> str:
    """'right', 'wrong' or 'skipped'; what went wrong in place of that."""
    if result.code != 0:
        return f"ended: {result.everything()}"
    said = result.output.strip().split(": ")
    return said[1] if len(said) > 1 else "wrong"  # the device printed nothing


class VisibleScenarios:
    """Tests to be inherited beside unittest.TestCase."""

    simulated = False

    @classmethod
    def setUpClass(cls):
        listed = programs.run(PROGRAM, "--list", preload=False, simulated=cls.simulated)
        cls.scenarios = [Scenario(*line.split("\t")) for line in listed.output.splitlines()]
        cls.real = cls.run_all(preload=False)

    @classmethod
    def run_all(cls, preload, **settings: str) -> dict[Scenario, programs.Result]:
        """Runs all scenarios; a setting {rule} is that of the scenario."""
        def one(scenario: Scenario) -> programs.Result:
            own = {name: value.format(rule=scenario.rule) for name, value in settings.items()}
            if scenario.rule == "visible_pageable_access":
                own["CMPSIM_PAGEABLE_ACCESS"] = "1"
            return programs.run(PROGRAM, scenario.name, preload=preload, simulated=cls.simulated,
                                CMPSIM_MEMORY="2G", **own)
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(cls.scenarios, pool.map(one, cls.scenarios)))

    def run_mode(self, mode: str) -> dict[Scenario, programs.Result]:
        """Under the pool; the test is skipped where this mode is."""
        if mode not in programs.MODES:
            self.skipTest(f"not under {mode}")
        results = self.run_all(preload=True, CMP_FREE_SYNC=mode)
        self.report(mode, results)
        return results

    def report(self, under: str, results: dict[Scenario, programs.Result]) -> None:
        """What there is to see of a run; a table elsewhere."""

    def without_wait(self, scenario: Scenario) -> str:
        """What comes without a wait; the simulated CUDA leaves nothing to chance."""
        unknown = scenario.without_wait == "unknown"
        return "wrong" if unknown and self.simulated else scenario.without_wait

    def check_right(self, results: dict[Scenario, programs.Result]) -> None:
        """Right, or as impossible here as with the real calls."""
        for scenario, result in results.items():
            with self.subTest(scenario=scenario.name):
                skipped = answer(self.real[scenario]) == "skipped"
                self.assertEqual(answer(result), "skipped" if skipped else "right",
                                 result.everything())

    def check_nothing_visible(self, results: dict[Scenario, programs.Result], waits: bool) -> None:
        """Whether the frees waited where they need not."""
        for scenario, result in results.items():
            if scenario.without_wait == "right":
                with self.subTest(scenario=scenario.name):
                    self.assertEqual(result.statistics["process"]["wait_calls"] != 0, waits,
                                     result.everything())
                    self.assertEqual("did not wait" not in result.errors, waits, result.errors)

    def test_real_calls(self):
        self.report("real calls", self.real)
        for scenario, result in self.real.items():
            with self.subTest(scenario=scenario.name):
                self.assertIn(answer(result), ("right", "skipped"))
        self.assertGreater([answer(r) for r in self.real.values()].count("right"), 40)

    def test_wait(self):
        results = self.run_mode("wait")
        self.check_right(results)
        self.check_nothing_visible(results, waits=True)  # or the device was not busy

    def test_auto(self):
        results = self.run_mode("auto")
        self.check_right(results)
        self.check_nothing_visible(results, waits=False)

    def test_none(self):
        """The scenarios must notice."""
        results = self.run_mode("none")
        for scenario, result in results.items():
            with self.subTest(scenario=scenario.name):
                expected = self.without_wait(scenario)
                if answer(self.real[scenario]) != "skipped" and expected != "unknown":
                    self.assertEqual(answer(result), expected, result.everything())

    def test_rules(self):
        """Each scenario rests on the rule that it names."""
        rules = os.environ.get("CMP_RULES_PRELOAD")
        if not rules:
            self.skipTest("CMP_RULES_PRELOAD does not name a preload whose rules can be off")
        results = self.run_all(preload=pathlib.Path(rules), CMP_FREE_SYNC="auto",
                               CMP_TEST_RULES_OFF="{rule}")
        for scenario, result in results.items():
            with self.subTest(scenario=scenario.name, rule=scenario.rule):
                skipped = answer(self.real[scenario]) == "skipped"
                if scenario.rule and self.without_wait(scenario) == "wrong" and not skipped:
                    self.assertEqual(answer(result), "wrong", result.everything())
