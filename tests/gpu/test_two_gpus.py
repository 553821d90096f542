"""What must be true on several GPUs: the same results without and with the pool.

Skipped with fewer than two; uses all that there are. Prints what the real calls wait for, and a
table of figures at the end; asserts no time.
"""

import glob
import importlib.util
import json
import os
import re
import sys
import tempfile
import unittest

import programs
from programs import add_figure

HAS_TORCH = importlib.util.find_spec("torch") is not None
UNCACHED = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
REAL = "real calls"
CARELESS = "a careless pool"


tearDownModule = programs.print_figures  # pylint: disable=invalid-name


class SeveralGpus(unittest.TestCase):
    def one(self, under: str, *command: str, code: int = 0, **settings: str) -> programs.Result:
        """Runs a program of the build folder under the real calls, a mode, or the careless pool."""
        program, *arguments = command
        if under in programs.MODES:
            settings["CMP_FREE_SYNC"] = under
        preload = programs.CARELESS if under == CARELESS else under in programs.MODES
        result = programs.run(str(programs.BUILD / program), *arguments, preload=preload,
                              timeout=90, **settings)
        self.assertEqual(result.code, code, f"{under}: {result.output}{result.errors}")
        return result

    def test_1_probe(self):
        """Of the real calls. The block's own device is always waited for."""
        result = self.one(REAL, "two_gpus_probe")
        print(result.output, flush=True)
        rows = [line for line in result.output.splitlines() if "cudaFree |" in line]
        owners = [row for row in rows if row.startswith("| kernel of the owner")]
        self.assertGreaterEqual(len(owners), 8)
        for row in owners:
            self.assertIn("| waited |", row)

    def stress(self, under: str, *arguments: str) -> None:
        result = self.one(under, "two_gpus", *arguments)
        devices, blocks, corruptions = map(int, re.findall(r"\d+", result.output))
        self.assertEqual(devices, programs.gpu_count())
        self.assertGreater(blocks, 1000)
        add_figure("two_gpus " + " ".join(a for a in arguments if a.startswith(("--wait", "--no"))), under,
                   f"{blocks:,} blocks, {corruptions:,} corruptions, "
                   f"{result.number('seconds'):.1f} s, "
                   f"{result.errors.split()[-1]} of asked frees under other devices' work")

    def test_2_reuse(self):
        # The real call does not promise to wait for the other devices.
        # (Beside 20 test suites it came to fewer than 1,000 blocks in 3 seconds.)
        self.stress(REAL, "--blocks", "2000", "--seconds", "40", "--wait-for-peers")
        for mode in programs.MODES:
            with self.subTest(mode=mode):
                self.stress(mode, "--seconds", "3")
        # Copies alone, which the fences of both devices cover.
        for mode in programs.MODES:
            with self.subTest(mode=mode, access=False):
                self.stress(mode, "--seconds", "3", "--no-access")
        with self.subTest(mode=CARELESS):
            self.stress(CARELESS, "--blocks", "40000", "--expect-corruption")

    def test_2_order(self):
        for under in (REAL, *programs.MODES, CARELESS):
            flags = {"none": ["--stale-allowed"], CARELESS: ["--expect-stale"]}.get(under, [])
            for way in ((), ("--no-access",), ("--green",), ("--green", "--no-access")):
                with self.subTest(under=under, way=way):
                    self.order(under, *way, *flags)

    def order(self, under: str, *arguments: str) -> None:
        result = self.one(under, "two_gpus_order", *arguments)
        stale = re.findall(r"(.*): reads (\d+) stale (\d+)", result.output)
        self.assertGreaterEqual(len(stale), 15)
        add_figure(" ".join(("two_gpus_order", *arguments)), under,
                   f"{sum(int(s[1]) for s in stale):,} reads, "
                   f"{sum(int(s[2]) for s in stale):,} stale: "
                   + (", ".join(s[0] for s in stale if s[2] != "0") or "none"))

    def test_3_alternating(self):
        def measure(under: str) -> dict:
            rows = map(json.loads, self.one(under, "two_gpus_alternate").output.splitlines())
            return {(row["threads"], row["bytes"], row["way"]): row["ns"] for row in rows}

        without = measure(REAL)
        rows = measure("auto")
        self.assertEqual(rows.keys(), without.keys())
        for (threads, size, way), ns in rows.items():
            real = without[threads, size, way]
            figure = f"{real:,.0f} ns without, {ns:,.0f} ns with, {real / ns:.1f} times"
            if way == "alternating":
                own = ns - rows[threads, size, "switch"]
                figure += (f"; without the switch {own:,.0f} ns, "
                           f"{own / rows[threads, size, 'one device']:.2f} times one device")
            add_figure(f"{way}, {threads} threads, {size >> 10} KiB", "auto", figure)

    def test_3_stays(self):
        for way in ("apart", "copies", "access"):
            without = self.one(REAL, "two_gpus_stays", way)
            within = self.one("auto", "two_gpus_stays", way)
            self.assertEqual(within.output, without.output)
            add_figure(f"a kernel stays on the other device, {way}", "auto",
                       f"{without.number('us'):.1f} us a turn without, {within.number('us'):.1f} with; "
                       f"a copy within the device {without.number('copy_ns'):.0f} ns without, "
                       f"{within.number('copy_ns'):.0f} with; "
                       f"hit rate {100 * within.statistics['totals']['hit_rate']:.1f}%, "
                       f"{within.waits()}")
            if way != "access":
                self.assertGreater(within.statistics["totals"]["hit_rate"], 0.9)

    def test_3_memory(self):
        """Each device keeps what pays there, and gives it back when it has not been used."""
        result = self.one("auto", "two_gpus_memory", CMP_DECAY="1s")
        moments = re.findall(r"(.*): device 0 (-?\d+), device 1 (-?\d+)", result.output)
        self.assertEqual(len(moments), 3, result.output)
        for moment, first, second in moments:
            add_figure("two_gpus_memory", "auto", f"{moment}: {first} and {second} MiB")
        free, first_rests, both_rest = [(int(m[1]), int(m[2])) for m in moments]
        self.assertGreaterEqual(free[0], 4096)
        self.assertGreaterEqual(free[1], 2048)
        self.assertLess(first_rests[0], 64)
        self.assertGreaterEqual(first_rests[1], 64)
        self.assertLess(first_rests[1], 1024)
        self.assertLess(max(both_rest), 64)
        self.assertEqual(result.statistics["process"]["contexts"], 2)

    def test_4_ipc(self):
        count = programs.gpu_count()
        for exporter, importer in ((0, count - 1), (count - 1, 0)):
            with self.subTest(exporter=exporter, importer=importer):
                command = ("ipc", str(exporter), str(importer))
                without = self.one(REAL, *command)
                within = self.one("auto", *command)
                self.assertEqual(within.output, without.output)
                self.assertIn("8 blocks shared, 0 wrong", within.output)
                add_figure(f"ipc from device {exporter} to {importer}", "auto",
                           within.output.replace("\n", "; ").strip("; "))


@unittest.skipUnless(HAS_TORCH, "PyTorch is not installed")
class Torch(unittest.TestCase):
    """Results equal bit by bit, with PyTorch's cache off and on."""

    def ranks(self, program: str, mode: str, **settings: str) -> tuple[programs.Result, dict]:
        """The result of rank 0, and the report of each rank."""
        count = programs.gpu_count()
        if mode:
            settings["CMP_FREE_SYNC"] = mode
        with tempfile.TemporaryDirectory() as folder:
            result = programs.run(
                "env", f"CMP_STATS={folder}/%r.%p.json", sys.executable, "-m",
                "torch.distributed.run", "--standalone", f"--nproc_per_node={count}",
                str(programs.HERE / program), preload=bool(mode), timeout=100,
                OMP_NUM_THREADS="1", **settings)
            self.assertEqual(result.code, 0, result.output + result.errors)
            reports = {}
            for file in glob.glob(f"{folder}/*.json"):
                with open(file, encoding="utf-8") as text:
                    report = json.load(text)
                if report["reached"]:  # not of the process that starts the others
                    rank = os.path.basename(file).split(".")[0]
                    self.assertNotIn(rank, reports)
                    reports[rank] = report
        self.assertEqual(sorted(reports), sorted(map(str, range(count if mode else 0))))
        return result, reports

    def distributed(self, what: str, program: str) -> programs.Result:
        """Without and with the pool; the result without."""
        for cache, settings in (("its cache off", UNCACHED), ("its cache on", {})):
            with self.subTest(cache=cache):
                without, _ = self.ranks(program, "", **settings)
                within, reports = self.ranks(program, "auto", **settings)
                self.assertEqual(within.output, without.output)
                seconds = without.number("seconds"), within.number("seconds")
                add_figure(f"{what}, {cache}", "auto",
                           f"{seconds[0]:.3f} s without, {seconds[1]:.3f} s with, "
                           f"{seconds[0] / seconds[1]:.2f} times")
                for rank, report in sorted(reports.items()):
                    totals = report["totals"]
                    waits = programs.in_words(programs.wait_counters(report))
                    add_figure(f"the same, rank {rank}", "auto",
                               f"{totals['requests']:,} allocations, hit rate "
                               f"{100 * totals['hit_rate']:.1f}%; {waits or 'no waits'}")
                    if settings:
                        self.assertGreater(totals["hit_rate"], 0.5)
        return without

    def test_5_data_parallel(self):
        without = self.distributed("DistributedDataParallel", "torch_ddp.py")
        wrong = re.findall(r"wrong words \[(.*)\]", without.output)
        self.assertEqual(wrong, ["0, 0, 0, 0"] * 10)

    def test_5_sharded(self):
        without = self.distributed("FSDP", "torch_fsdp.py")
        self.assertGreater(len(without.output.split()), 35 * programs.gpu_count())

    def test_6_replicas(self):
        command = (sys.executable, str(programs.HERE / "torch_replicas.py"))
        without = programs.run(*command, preload=False, timeout=100, **UNCACHED)
        self.assertEqual(without.code, 0, without.errors)
        self.assertEqual(without.output.count(": 0 wrong"), 4)
        for mode in ("auto", "order"):
            with self.subTest(mode=mode):
                within = programs.run(*command, preload=True, timeout=100, CMP_FREE_SYNC=mode,
                                      **UNCACHED)
                self.assertEqual(within.code, 0, within.errors)
                self.assertEqual(within.output, without.output)
                seconds = without.number("seconds"), within.number("seconds")
                add_figure("DataParallel, its cache off", mode,
                           f"{seconds[0]:.3f} s without, {seconds[1]:.3f} s with, "
                           f"{seconds[0] / seconds[1]:.2f} times; "
                           f"hit rate {100 * within.statistics['totals']['hit_rate']:.1f}%, "
                           f"contexts {within.statistics['process']['contexts']}, "
                           f"{within.waits()}")


if __name__ == "__main__":
    if programs.gpu_count() < 2:
        programs.skip_all("fewer than two GPUs")
    unittest.main(verbosity=2)
