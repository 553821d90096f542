"""The GPU tests' own programs on the simulated CUDA: without and with the pool alike."""

import json
import os
import unittest

import compare_launches
import programs
import visible_scenarios

SEEDS = ("0", "1", "2")


class Simulated(unittest.TestCase):
    def compare(self, program: str, *arguments: str) -> tuple[programs.Result, programs.Result]:
        command = (str(programs.BUILD / program), *arguments)
        without = programs.run(*command, preload=False, simulated=True, CMPSIM_MEMORY="2G")
        with_pool = programs.run(*command, preload=True, simulated=True, CMPSIM_MEMORY="2G")
        self.assertEqual(without.code, 0, without.everything())
        self.assertEqual(with_pool.code, 0, with_pool.everything())
        self.assertEqual(with_pool.output, without.output, with_pool.everything())
        return without, with_pool

    def test_edges(self):
        without, with_pool = self.compare("edges")
        self.assertIn("== reset", without.output)
        self.assertGreater(with_pool.statistics["totals"]["thread_cache_hits"], 0)
        self.assertGreater(with_pool.statistics["process"]["capture_real_calls"], 0)

    def test_driver_api(self):
        without, with_pool = self.compare("driver_api")
        self.assertEqual(without.output.count("wrong words 0"), 4)
        self.assertGreater(with_pool.statistics["totals"]["hit_rate"], 0.8)

    def test_questions(self):
        without, with_pool = self.compare("questions")
        self.assertIn("buffer ids of three allocations: 3 different", without.output)
        self.assertGreater(with_pool.statistics["totals"]["hit_rate"], 0.3)

    def test_freed(self):
        """What a program has no more is refused, as without the pool."""
        for what in ("", "captured", "untyped", "nodes"):
            with self.subTest(what=what):
                without, _ = self.compare("freed", what)
                self.assertIn("freed", without.output)
        without, _ = self.compare("freed")
        self.assertEqual(without.output.count("0 1 1 1 1 0 1 1 1 1 0 1 1 1 1 0 1 1 1 1 0 1 0"), 26)

    def test_page_locked(self):
        """Page-locked memory, kept or not, in every mode."""
        for part, arguments in (("questions", ()), ("contents", ("--rounds", "40")),
                                ("copies", ("--rounds", "40")), ("times", ("--repetitions", "20"))):
            said = ""
            for mode in ("", *programs.MODES):
                with self.subTest(part=part, mode=mode):
                    output = self.both("page_locked", part, *arguments, mode=mode, CMP_HOST="on")
                    output = "".join(line for line in output.splitlines(True)
                                     if not line.startswith("# "))
                    self.assertNotRegex(output, r"(?m)(^|: )[1-9]\d* wrong words")
                    said = said or output
                    self.assertEqual(output, said)

    def test_out_of_memory(self):
        for way in ("stack", "async", "physical", "array"):
            with self.subTest(way=way):
                without, with_pool = self.compare("out_of_memory", way)
                self.assertRegex(without.output, r" 0\n(.*\n)?last error 0\n")
                self.assertGreaterEqual(
                    with_pool.statistics["process"]["out_of_memory_rescues"], 1)
        for way in ("stream", "event", "context", "page-locked"):
            with self.subTest(way=way):
                self.compare("out_of_memory", way)

    def test_async_keep(self):
        for settings in ({}, {"CMP_ASYNC_KEEP": "off"}):
            with self.subTest(**settings):
                without = programs.run(str(programs.BUILD / "async_keep"), "checks", "--rest", "1",
                                       preload=False, simulated=True, CMPSIM_MEMORY="2G")
                within = programs.run(str(programs.BUILD / "async_keep"), "checks", "--rest", "1",
                                      preload=True, simulated=True, CMPSIM_MEMORY="2G",
                                      CMP_DECAY="200ms", **settings)
                self.assertEqual(without.code, 0, without.everything())
                self.assertEqual(within.code, 0, within.everything())
                self.assertEqual(without.output, within.output, within.everything())
                kept = 0 if settings else 64
                self.assertEqual([within.number(when) for when in ("kept", "aged", "asked")],
                                 [kept, 0, 0])
        self.assertIn("after a reset: threshold 0, used 0, reserved 0\n", without.output)
        for arguments in (("rounds", "--rounds", "20"), ("threads", "--pairs", "50")):
            for threshold in ((), ("--threshold", "most")):
                self.both("async_keep", *arguments, *threshold, mode="auto")
        self.assertIn("capture 2, trim by the same thread: 0, its end: 0\n",
                      self.both("async_keep", "probe", CMPSIM_MEMORY="2G"))

    def test_ipc(self):
        without, with_pool = self.compare("ipc")
        self.assertIn("8 blocks shared, 0 wrong", without.output)
        self.assertGreaterEqual(with_pool.statistics["process"]["unpooled_blocks"], 8)

    def test_ipc_between_devices(self):
        sizes = "512 700 4096 70000 1048576 3145728 3000001 20971520"
        for exporter, importer in (("0", "2"), ("2", "1")):
            for mode in ("", *programs.MODES):
                with self.subTest(exporter=exporter, importer=importer, mode=mode):
                    output = self.both("ipc", exporter, importer, mode=mode, CMPSIM_DEVICES="3")
                    self.assertEqual(output, "importer: 0 wrong blocks\n"
                                             f"importer without a preload: {sizes}\n"
                                             "exporter: 8 blocks shared, 0 wrong\n")

    def both(self, program: str, *arguments: str, mode: str = "", **settings: str) -> str:
        """Output of a program that must end well without (mode '') or with the pool."""
        if mode:
            settings["CMP_FREE_SYNC"] = mode
        result = programs.run(str(programs.BUILD / program), *arguments, preload=bool(mode),
                              simulated=True, **settings)
        self.assertEqual(result.code, 0, result.everything())
        return result.output

    def careless(self, program: str, *arguments: str, **settings: str) -> None:
        """A pool without rules must be noticed; not with sanitizers, which notice it first."""
        if os.environ.get("CMP_SANITIZE"):
            return
        result = programs.run(str(programs.BUILD / program), *arguments, simulated=True,
                              preload=programs.CARELESS, **settings)
        self.assertEqual(result.code, 0, result.everything())

    def test_stress(self):
        arguments = ("--threads", "4", "--blocks", "4000")
        for seed in SEEDS:
            for mode in ("", *programs.MODES):
                with self.subTest(seed=seed, mode=mode):
                    output = self.both("stress", *arguments, mode=mode, CMPSIM_SEED=seed)
                    self.assertEqual(output, "blocks 4000 corruptions 0\n")
            self.careless("stress", *arguments, "--expect-corruption", CMPSIM_SEED=seed)

    def test_several_devices(self):
        arguments = ("--threads", "2", "--blocks", "2400")
        for devices, seed in (("2", "0"), ("3", "1"), ("3", "2")):
            settings = {"CMPSIM_SEED": seed, "CMPSIM_DEVICES": devices, "CMPSIM_MEMORY": "2G"}
            for mode in ("", *programs.MODES):
                with self.subTest(devices=devices, seed=seed, mode=mode):
                    # The real free waits for the block's own device alone.
                    flags = () if mode else ("--wait-for-peers",)
                    output = self.both("two_gpus", *arguments, *flags, mode=mode, **settings)
                    self.assertEqual(output, f"devices {devices} blocks 2400 corruptions 0\n")
            self.careless("two_gpus", *arguments, "--expect-corruption", **settings)
        for mode in programs.MODES:
            output = self.both("two_gpus", *arguments, "--no-access", mode=mode, CMPSIM_DEVICES="2",
                               CMPSIM_MEMORY="2G", CMPSIM_SEED="3")
            self.assertIn("corruptions 0", output)

    def test_order_across_devices(self):
        for seed in SEEDS:
            settings = {"CMPSIM_SEED": seed, "CMPSIM_DEVICES": "3"}
            for mode in ("", *programs.MODES):
                with self.subTest(seed=seed, mode=mode):
                    flags = ("--stale-allowed",) if mode == "none" else ()
                    self.both("two_gpus_order", "--rounds", "1", *flags, mode=mode, **settings)
            self.careless("two_gpus_order", "--rounds", "1", "--expect-stale", **settings)
        for mode in ("", "auto"):  # copies alone read; green contexts write
            for way in (("--no-access",), ("--green",), ("--green", "--no-access")):
                with self.subTest(way=way, mode=mode):
                    self.both("two_gpus_order", "--rounds", "1", *way, mode=mode,
                              CMPSIM_DEVICES="2")

    def test_order(self):
        for seed in SEEDS:
            for mode in ("", *programs.MODES):
                with self.subTest(seed=seed, mode=mode):
                    flags = ("--stale-allowed",) if mode == "none" else ()
                    output = self.both("order", "--rounds", "1", *flags, mode=mode,
                                       CMPSIM_SEED=seed)
                    self.assertIn("spin: 8 kernels ended", output)
            self.careless("order", "--rounds", "1", "--expect-stale", CMPSIM_SEED=seed)

    def test_staying(self):
        for mode in ("", *programs.MODES):
            settings = {"CMP_DECAY": "30ms", "CMP_RESERVE": "1x"} if mode else {}
            with self.subTest(mode=mode):
                output = self.both("staying", "--seconds", "1", mode=mode, CMPSIM_MEMORY="4G",
                                   **settings)
                self.assertEqual(output, "in vain: none\n")

    def test_managed(self):
        for mode in ("", *programs.MODES):
            row = json.loads(self.both("managed", "--idle", "512", "--managed", "700", "--touched",
                                       "64", mode=mode, CMPSIM_MEMORY="1G"))
            self.assertEqual(len(row["pass_ms"]), 5)
            self.assertEqual(row["kept_mib"], 512 if mode else 0)
            self.assertLessEqual(row["before_touch_mib"] + 700, 1024)

    @unittest.skipIf(os.environ.get("CMP_SANITIZE"), "the careless pool is not for sanitizers")
    def test_spin_notices(self):
        result = programs.run(str(programs.BUILD / "order"), "--rounds", "1", "--stale-allowed",
                              preload=programs.CARELESS, simulated=True,
                              CARELESS_MALLOC_WAITS="1", CMPSIM_PATIENCE_MS="300")
        self.assertNotEqual(result.code, 0)
        self.assertIn("deadlock", result.errors)

    def test_captures(self):
        without = self.both("captures", "--captures", "20").splitlines()
        for mode in programs.MODES:
            with self.subTest(mode=mode):
                within = self.both("captures", "--captures", "20", mode=mode).splitlines()
                self.assertEqual(within, without)

    def test_full(self):
        for mode in ("", *programs.MODES):
            with self.subTest(mode=mode):
                self.assertIn("failed 0 corruptions 0", self.both("full", "--steps", "300",
                                                                  mode=mode))

    def test_measurements(self):
        """That they run; their times mean nothing here."""
        for mode in ("", *programs.MODES):
            row = json.loads(self.both("loop", "--iterations", "50", "--repetitions", "1",
                                       mode=mode))
            self.assertEqual(row["bytes"], 1 << 20)
            for copy in ("synchronised", "pending"):
                self.both("loop", "--iterations", "50", "--repetitions", "1", "--copy", copy,
                          mode=mode)
            row = json.loads(self.both("polling", "--seconds", "0.1", mode=mode))
            self.assertGreaterEqual(row["polls_per_second"], 0)  # 0 where others had both cores
        two = {"CMPSIM_DEVICES": "2"}
        for mode in ("", *programs.MODES):
            rows = self.both("two_gpus_alternate", "--milliseconds", "1", mode=mode, **two)
            self.assertEqual(len(rows.splitlines()), 24)
        self.assertIn("cuCtxWaitEvent", self.both("two_gpus_probe", "--large", "4", **two))
        cases = compare_launches.measure("2", False, simulated=True)
        self.assertEqual(len(cases), 10)
        self.assertEqual(cases.keys(), compare_launches.measure("2", True, simulated=True).keys())


class Visible(visible_scenarios.VisibleScenarios, unittest.TestCase):
    """As far as the simulated CUDA goes."""

    simulated = True


if __name__ == "__main__":
    unittest.main()
