"""What must be true on a GPU: programs give the same results without and with the pool.

Skipped where there is no GPU. Prints time and real calls side by side, and a table of figures at
the end; asserts no time.
"""

import collections
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import unittest

import compare_launches
import programs
import visible_scenarios
from programs import add_figure

HAS_TORCH = importlib.util.find_spec("torch") is not None
UNCACHED = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


def side_by_side(name: str, without: programs.Result, with_pool: programs.Result) -> None:
    """One line of evidence."""
    totals = with_pool.statistics["totals"]
    process = with_pool.statistics["process"]
    calls = totals["requests"] + totals["frees"] + totals["real_frees"]
    real = process["real_malloc_calls"] + process["real_free_calls"]
    seconds = without.number("seconds"), with_pool.number("seconds")
    print(f"{name}: {seconds[0]:.3f} s without, {seconds[1]:.3f} s with "
          f"({seconds[0] / seconds[1]:.2f} times), real calls {calls} and {real}, "
          f"hit rate {100 * totals['hit_rate']:.1f}%", flush=True)
    add_figure(name, "auto", f"{seconds[0]:.3f} s without, {seconds[1]:.3f} s with; "
               f"{totals['frees']:,} frees, {with_pool.waits()}")


tearDownModule = programs.print_figures  # pylint: disable=invalid-name


def built_by_nvcc() -> bool:
    """Builds the programs that need nvcc. False without it."""
    made = subprocess.run(["cmake", "--build", str(programs.BUILD), "--target", "nvcc_programs"],
                          capture_output=True, text=True, check=False)
    if made.returncode != 0 and "nvcc_programs" not in made.stderr:
        raise AssertionError(made.stdout)
    return made.returncode == 0


class Gpu(unittest.TestCase):
    def compare(self, *command: str, **settings: str) -> tuple[programs.Result, programs.Result]:
        without = programs.run(*command, preload=False, **settings)
        with_pool = programs.run(*command, preload=True, CMP_FREE_SYNC="auto", **settings)
        self.assertEqual(without.code, 0, without.errors)
        self.assertEqual(with_pool.code, 0, with_pool.errors)
        self.assertEqual(with_pool.output, without.output)
        self.assertIsNotNone(with_pool.statistics, "no statistics were written")
        self.assertTrue(with_pool.statistics["reached"])
        return without, with_pool

    def test_churn(self):
        for program, threads in (("churn", 1), ("churn", 8), ("churn_static", 8)):
            with self.subTest(program=program, threads=threads):
                results = self.compare(str(programs.BUILD / program), str(threads), "3000")
                side_by_side(f"{program}, {threads} threads", *results)
                self.assertGreater(results[1].statistics["totals"]["hit_rate"], 0.8)

    def test_page_locked(self):
        """Page-locked memory, kept: the same answers and contents; figures, no assertions of time."""
        for part in ("questions", "contents", "copies", "times"):
            with self.subTest(part=part):
                command = (str(programs.BUILD / "page_locked"), part)
                said = []
                for settings in ({}, {"CMP_HOST": "on"}):
                    result = programs.run(*command, preload=bool(settings), **settings)
                    self.assertEqual(result.code, 0, result.everything())
                    lines = result.output.splitlines()
                    said.append([line for line in lines if not line.startswith("# ")])
                    for line in lines:
                        if line.startswith("# "):
                            what, _, figure = line[2:].rpartition(": ")
                            add_figure(f"page-locked, {what}", "kept" if settings else "real", figure)
                self.assertEqual(said[0], said[1])
                self.assertNotRegex("\n".join(said[1]), r"(?m)(^|: )[1-9]\d* wrong words")

    def test_thrust(self):
        if not built_by_nvcc():
            self.skipTest("no nvcc")
        for runtime in ("shared", "static"):
            with self.subTest(runtime=runtime):
                results = self.compare(str(programs.BUILD / f"thrust_{runtime}"))
                side_by_side(f"thrust, {runtime} runtime", *results)
                self.assertGreater(results[1].statistics["totals"]["hit_rate"], 0.9)

    @unittest.skipUnless(importlib.util.find_spec("cupy"), "CuPy is not installed")
    def test_cupy(self):
        results = self.compare(sys.executable, str(programs.HERE / "cupy_run.py"))
        side_by_side("CuPy, its pool off", *results)
        self.assertGreater(results[1].statistics["totals"]["hit_rate"], 0.9)

    def test_frameworks(self):
        # JAX has a pool of its own. Its compiler times kernels and takes the fastest, so runs differ
        # in the last bits, without the pool too (seen on an H200, 2026-11-28), unless it is told not
        # to.
        same = {"XLA_FLAGS": "--xla_gpu_autotune_level=0 --xla_gpu_deterministic_ops=true"}
        for name, module, file, settings, hit_rate in (
                ("JAX", "jax", "jax_run.py", same, 0),
                ("Numba", "numba", "numba_run.py", {}, 0.5),
                ("GPT-2 of transformers, uncached", "transformers", "transformers_run.py",
                 UNCACHED, 0.5)):
            with self.subTest(name=name):
                if importlib.util.find_spec(module) is None:
                    self.skipTest(f"{module} is not installed")
                results = self.compare(sys.executable, str(programs.HERE / file), **settings)
                side_by_side(name, *results)
                self.assertGreaterEqual(results[1].statistics["totals"]["hit_rate"], hit_rate)

    @unittest.skipUnless(importlib.util.find_spec("cupy"), "CuPy is not installed")
    def test_page_locked_of_cupy(self):
        """The same contents; buffers that CuPy does not keep are served, its pool is no slower."""
        program = [sys.executable, str(programs.HERE / "cupy_pinned.py")]
        for name, options in (("its pool off", []), ("its own pool", ["--pool"])):
            with self.subTest(name):
                results = {"without": programs.run(*program, *options, preload=False)}
                for host in ("off", "on"):
                    results[f"CMP_HOST={host}"] = programs.run(*program, *options, preload=True,
                                                               CMP_HOST=host)
                for under, result in results.items():
                    self.assertEqual(result.code, 0, result.everything())
                    self.assertEqual(result.output, results["without"].output)
                    add_figure(f"page-locked buffers of CuPy, {name}", under,
                               f"{result.number('seconds'):.3f} s")
                process = results["CMP_HOST=on"].statistics["process"]
                hits = process["host_thread_cache_hits"] + process["host_global_pool_hits"]
                if not options:
                    self.assertGreater(hits, 0.8 * process["host_requests"])

    def test_async_keep(self):
        """Stream-ordered pools: the same answers, memory that ages, and what a round takes."""
        program = str(programs.BUILD / "async_keep")
        without = programs.run(program, "checks", "--rest", "3", preload=False)
        within = programs.run(program, "checks", "--rest", "3", preload=True, CMP_DECAY="1s")
        self.assertEqual(without.code, 0, without.everything())
        self.assertEqual(within.code, 0, within.everything())
        self.assertEqual(without.output, within.output, within.everything())
        self.assertGreaterEqual(within.number("kept"), 60)  # others use the device, too
        for when in ("aged", "asked"):
            self.assertLess(within.number(when), 40, within.errors)
        # What was kept was there for whoever lacked memory (cudaMalloc takes it by itself).
        self.assertGreater(within.statistics["process"]["kept_peak_bytes"], 20 << 30)
        for what in (("rounds", "--mib", "1"), ("rounds", "--mib", "64"), ("threads",)):
            times = [json.loads(result.output) for result in (
                programs.run(program, *what, preload=False),
                programs.run(program, *what, "--threshold", "most", preload=False),
                programs.run(program, *what, preload=True),
                programs.run(program, *what, preload=True, CMP_ASYNC_KEEP="off"))]
            for each, name in zip(times, ("as it is", "largest threshold", "auto", "off")):
                key = "pair_us" if what[0] == "threads" else "round_us"
                add_figure(f"async_keep {' '.join(what)}", name, f"{each[key]:.2f} us")
            print(f"async_keep {' '.join(what)}: {times}", flush=True)

    def test_ipc(self):
        _, with_pool = self.compare(str(programs.BUILD / "ipc"))
        self.assertIn("importer without a preload: 512 700 4096 70000 ", with_pool.output)
        self.assertGreaterEqual(with_pool.statistics["process"]["unpooled_blocks"], 8)

    def test_driver_api(self):
        _, with_pool = self.compare(str(programs.BUILD / "driver_api"))
        self.assertGreater(with_pool.statistics["totals"]["hit_rate"], 0.8)

    def test_questions(self):
        _, with_pool = self.compare(str(programs.BUILD / "questions"))
        self.assertGreater(with_pool.statistics["totals"]["hit_rate"], 0.3)

    def test_freed(self):
        """What a program has no more is refused, as without the pool."""
        for what in ("", "captured", "nodes"):
            with self.subTest(what=what):
                self.compare(str(programs.BUILD / "freed"), what)
        # The real calls crash.
        within = programs.run(str(programs.BUILD / "freed"), "untyped", preload=True)
        self.assertEqual(within.code, 0, within.everything())
        # (Of nothing a batch may say what it likes.)
        refused = r": 0 1 1 1 1 0 1 1 1 1 0 1 1 1 1 0 1 1 1 1 0 1 \d, done 0\n"
        self.assertEqual(len(re.findall(refused, within.output)), 6, within.output)
        rates = [programs.run(str(programs.BUILD / "freed"), "rate", preload=preload)
                 for preload in (False, True)]
        for what in ("copy", "set"):
            add_figure(f"one {what} of 256 bytes", "auto",
                       f"{rates[0].number(what):.0f} ns without, {rates[1].number(what):.0f} with")

    def test_growing(self):
        """What the pool holds, where nothing that is idle serves."""
        program = str(programs.BUILD / "growing")
        for busy in ((), ("--busy",)):
            real = json.loads(programs.run(program, *busy, preload=False).output)
            within = programs.run(program, *busy, preload=True)
            self.assertEqual(within.code, 0, within.everything())
            process = within.statistics["process"]
            held, peak = process["reserved_peak_bytes"] >> 20, process["live_peak_bytes"] >> 20
            ours = json.loads(within.output)
            add_figure("growing", " ".join(("auto", *busy)), f"{held} MiB held, {1.15 * peak + 256:.0f} may "
                       f"be; the slowest allocation {ours['allocation_ms']} ms, without the pool "
                       f"{real['allocation_ms']}; free {ours['free_ms']}, {real['free_ms']}")
            self.assertEqual(process["regretted_releases"], 0)
            if not busy:  # what the device still uses cannot be released
                self.assertLessEqual(held, 1.15 * peak + 256)

    @unittest.skipUnless(HAS_TORCH, "PyTorch is not installed")
    def test_torch_with_workers(self):
        _, with_pool = self.compare(sys.executable, str(programs.HERE / "torch_loader.py"),
                                    **UNCACHED)
        self.assertGreater(with_pool.statistics["totals"]["hit_rate"], 0.5)
        add_figure("PyTorch with workers", "auto", with_pool.waits())

    def test_crashes(self):
        """Once any call has told of a crash, all calls answer as without the pool."""
        silent = ("module", "graph", "stream-destroy")
        for way in ("device", "stream", "query", "event", "copy", "free", "array", *silent):
            with self.subTest(way=way):
                without, _ = self.compare(str(programs.BUILD / "crashes"), way)
                told = 0 if way in silent else 719
                self.assertIn(f"told {told}\ncudaMalloc 719, cuMemAlloc 719\n", without.output)
        for mode in programs.MODES:
            with self.subTest(mode=mode):
                command = (str(programs.BUILD / "crashes"), "host-function")
                without = programs.run(*command, preload=False)
                within = programs.run(*command, preload=True, CMP_FREE_SYNC=mode)
                self.assertIn("cudaFree 800, again 800, of NULL 800\n", without.output)
                self.assertEqual(without.output, within.output, within.everything())

    def test_pitched(self):
        """A process that allocates by pitch alone is served from its first call."""
        without, with_pool = self.compare(str(programs.BUILD / "pitched"))
        self.assertGreater(with_pool.statistics["totals"]["hit_rate"], 0.99)
        for what in ("cudaMallocPitch", "cudaMalloc3D", "cuMemAllocPitch", "cudaMalloc", "cuMemAlloc"):
            add_figure(f"pair of {what}, 800 KiB", "auto",
                       f"{without.number(what) / 1e3:.1f} µs without, "
                       f"{with_pool.number(what):.1f} ns with")

    def test_out_of_memory(self):
        """What needs memory finds it beside idle blocks that fill the device."""
        for way in ("stack", "heap", "local", "lazy", "stream", "event", "context", "module",
                    "async", "physical", "array", "page-locked", "graph"):
            with self.subTest(way=way):
                _, with_pool = self.compare(str(programs.BUILD / "out_of_memory"), way)
                rescues = with_pool.statistics["process"]["out_of_memory_rescues"]
                add_figure(f"out of memory: {way}", "auto", f"{rescues} rescues")
        _, with_pool = self.compare(str(programs.BUILD / "out_of_memory"), "refused")
        add_figure("out of memory: no registers for 100 launches", "auto",
                   f"{with_pool.statistics['totals']['blocks_released']:,} blocks released")

    def test_deep(self):
        """What launches past the pool keeps it from serving memory under its work."""
        for mode in programs.MODES:
            with self.subTest(mode=mode):
                command = str(programs.BUILD / "deep")
                without = programs.run(command, preload=False)
                within = programs.run(command, preload=True, CMP_FREE_SYNC=mode)
                self.assertEqual(without.output, "overwritten: 0\n")
                self.assertEqual(within.output, without.output, within.everything())
                self.assertIn("came with RTLD_DEEPBIND", within.statistics["aside"])

    def test_edges(self):
        _, with_pool = self.compare(str(programs.BUILD / "edges"))
        self.assertGreater(with_pool.statistics["process"]["capture_real_calls"], 0)
        self.assertEqual(with_pool.statistics["process"]["double_frees"], 1)

    def test_fill(self):
        _, with_pool = self.compare(str(programs.BUILD / "churn"), "4", "500", CMP_FILL="0xAB")
        self.assertGreater(with_pool.statistics["totals"]["hit_rate"], 0.5)

    @unittest.skipUnless(HAS_TORCH, "PyTorch is not installed")
    def test_torch(self):
        train = (sys.executable, str(programs.HERE / "torch_train.py"), "50")
        results = self.compare(*train, **UNCACHED)
        side_by_side("PyTorch training, uncached", *results)
        self.assertGreater(results[1].statistics["totals"]["hit_rate"], 0.8)
        cached = programs.run(*train, preload=False)
        self.assertEqual(cached.output, results[0].output)
        add_figure("PyTorch training", "PyTorch's own cache", f"{cached.number('seconds'):.3f} s")


class Visible(visible_scenarios.VisibleScenarios, unittest.TestCase):
    """What the host sees right after cudaFree."""

    def report(self, under: str, results: dict) -> None:
        answers = {s.name: visible_scenarios.answer(r) for s, r in results.items()}
        waits = collections.Counter()
        for scenario, result in results.items():
            figures = f"visible: {scenario.name} | {under} | {answers[scenario.name]}"
            if result.statistics:
                figures += f" | {result.waits()}"
                waits.update(programs.wait_counters(result.statistics))
            print(figures, flush=True)
        count = collections.Counter(answers.values())
        unknown = ", ".join(f"{s.name} {answers[s.name]}" for s in results
                            if s.without_wait == "unknown")
        add_figure("visible", under, "; ".join(filter(None, [
            ", ".join(f"{n} {what}" for what, n in count.items()), unknown,
            programs.in_words(waits)])))

    def test_managed_variable(self):
        """Of a program that the runtime registers variables of."""
        if not built_by_nvcc():
            self.skipTest("no nvcc")
        program = str(programs.BUILD / "visible_managed")
        without = programs.run(program, preload=False)
        self.assertEqual(without.code, 0, without.errors)
        self.assertNotIn("wrong", without.output)
        for mode in programs.MODES:
            with self.subTest(mode=mode):
                within = programs.run(program, preload=True, CMP_FREE_SYNC=mode)
                self.assertEqual(within.code, 0, within.errors)
                add_figure("visible_managed", mode, f"{within.output.strip()}; {within.waits()}")
                if "skipped" not in without.output:
                    right = mode in ("wait", "auto")
                    self.assertIn("right" if right else "wrong", within.output)


@unittest.skipUnless(HAS_TORCH, "PyTorch is not installed")
class Training(unittest.TestCase):
    """PyTorch without its own cache, fed page-locked and pageable batches."""

    KINDS = ("pinned", "pageable", "conv")
    STEPS = 240  # of all trainings of a kind, the one that warms up included

    def train(self, *kinds: str, mode: str = "", **settings: str) -> programs.Result:
        if mode:
            settings["CMP_FREE_SYNC"] = mode
        result = programs.run(sys.executable, str(programs.HERE / "torch_loader_pinned.py"), *kinds,
                              preload=bool(mode), **settings)
        self.assertEqual(result.code, 0, result.errors)
        if mode:
            self.assertTrue(result.statistics["reached"])
        return result

    def test_training(self):
        without = self.train(*self.KINDS, **UNCACHED)
        losses = without.output.splitlines()
        results = {"real calls": without, "PyTorch's own cache": self.train(*self.KINDS)}
        for mode in programs.MODES:
            if mode != "auto":
                results[mode] = self.train(*self.KINDS, mode=mode, **UNCACHED)
        for under, result in results.items():
            with self.subTest(under=under):
                self.assertEqual(result.output.splitlines(), losses)
        for kind in self.KINDS:
            real = without.number(f"{kind}_seconds")
            for under, result in results.items():
                seconds = result.number(f"{kind}_seconds")
                add_figure(f"PyTorch, {kind}", under,
                           f"{seconds:.3f} s, {real / seconds:.2f} times")
            # On its own, so that its waits are known.
            with self.subTest(under="auto", kind=kind):
                result = self.train(kind, mode="auto", **UNCACHED)
                self.assertEqual(result.output.splitlines(),
                                 [line for line in losses if line.startswith(kind)])
                seconds = result.number(f"{kind}_seconds")
                totals = result.statistics["totals"]
                add_figure(f"PyTorch, {kind}", "auto",
                           f"{seconds:.3f} s, {real / seconds:.2f} times; {totals['frees']:,} "
                           f"frees, hit rate {100 * totals['hit_rate']:.1f}%, {result.waits()}")
                # Two page-locked copies a step may stop a free each; what cuDNN maps for itself,
                # and the copies that are over, must not.
                process = result.statistics["process"]
                self.assertLessEqual(process["wait_calls"] - process["bound_waits"],
                                     3 * self.STEPS)

    @unittest.skipIf("auto" not in programs.MODES, "not under auto")
    def test_page_locked_batches_are_kept(self):
        """CMP_HOST=on beside PyTorch's own cache of page-locked memory: the same losses."""
        without = self.train("pinned", mode="auto", **UNCACHED)
        within = self.train("pinned", mode="auto", CMP_HOST="on", **UNCACHED)
        self.assertEqual(within.output, without.output)
        for under, result in (("CMP_HOST=off", without), ("CMP_HOST=on", within)):
            add_figure("PyTorch, pinned", under, f"{result.number('pinned_seconds'):.3f} s")


class Streams(unittest.TestCase):
    """Programs that look for what a pool may do wrong while the device is busy."""

    def one(self, under: str, *command: str, code: int = 0, **settings: str) -> programs.Result:
        """Runs a program of the build folder: 'real calls', a mode, or a library to preload."""
        program, *arguments = command
        if under in programs.MODES:
            settings["CMP_FREE_SYNC"] = under
        preload = pathlib.Path(under) if "/" in under else under in programs.MODES
        result = programs.run(str(programs.BUILD / program), *arguments, preload=preload,
                              **settings)
        self.assertEqual(result.code, code, result.output + result.errors)
        return result

    def stress(self, under: str, name: str, *arguments: str, **settings: str) -> int:
        result = self.one(under, "stress", *arguments, **settings)
        blocks, corruptions = map(int, re.findall(r"\d+", result.output))
        words = result.errors.split()
        pending = words[words.index("pending_at_free") + 1]
        # Frees of idle memory would prove nothing. Under auto the program's own query, by which it
        # counts, waits for what earlier frees did not wait for (33% were pending on an H200).
        self.assertGreater(float(pending.rstrip("%")), 10 if under == "auto" else 50)
        add_figure("stress", name, f"{blocks:,} blocks, {corruptions:,} corruptions, "
                   f"{result.number('seconds'):.1f} s, {pending} pending at the free")
        return blocks

    def test_stress(self):
        self.stress("real calls", "real calls", "--seconds", "4")
        for mode in programs.MODES:
            with self.subTest(mode=mode):
                if mode == "none":  # nothing but the fences keeps the blocks apart
                    blocks = self.stress(mode, mode, "--blocks", "2000000", "--seconds", "60")
                    self.assertGreaterEqual(blocks, 2000000)
                else:
                    self.stress(mode, mode, "--blocks", "1000000", "--seconds", "8")

    def test_stress_notices(self):
        """The program must notice a pool without the rule."""
        self.stress(str(programs.CARELESS), "a careless pool", "--blocks", "100000",
                    "--expect-corruption")

    @unittest.skipUnless("CMP_RULES_PRELOAD" in os.environ,
                         "CMP_RULES_PRELOAD does not name a preload whose rules can be off")
    def test_stress_without_fences(self):
        self.stress(os.environ["CMP_RULES_PRELOAD"], "none, fences off", "--blocks", "200000",
                    "--expect-corruption", CMP_FREE_SYNC="none",
                    CMP_TEST_RULES_OFF="fence_before_reuse")

    def test_order(self):
        for under in ("real calls", *programs.MODES, str(programs.CARELESS)):
            flags = {"none": ["--stale-allowed"],
                     str(programs.CARELESS): ["--expect-stale"]}.get(under, [])
            with self.subTest(under=under):
                result = self.one(under, "order", *flags)
                add_figure("order", "a careless pool" if "/" in under else under,
                           "; ".join(line for line in result.output.splitlines()
                                     if line.startswith(("order", "spin"))))

    def test_spin_notices(self):
        """A cudaMalloc that waits must be noticed, and the program must come to an end."""
        result = self.one(str(programs.CARELESS), "order", "--rounds", "1", "--stale-allowed",
                          code=1, CARELESS_MALLOC_WAITS="1")
        self.assertIn("DEADLOCK", result.output)

    def test_staying(self):
        """No release of idle memory waits for a kernel that stays, or holds up a launch."""
        for under in ("real calls", *programs.MODES):
            with self.subTest(under=under):
                result = self.one(under, "staying", "--seconds", "8", CMP_DECAY="30ms",
                                  CMP_RESERVE="1x")
                freed = ""
                if result.statistics:
                    calls = result.statistics["process"]["real_free_calls"]
                    self.assertGreater(calls, 100)
                    freed = f", {calls:,} real frees"
                add_figure("kernels that stay", under, f"{result.number('stayed'):,.0f}, worst "
                           f"launch {result.number('worst_launch_us'):.0f} µs{freed}")

    def test_managed(self):
        """It finds the room that it needs before it is first touched, and is as fast as without."""
        rows = {under: json.loads(self.one(under, "managed").output)
                for under in ("real calls", "auto")}
        room = rows["real calls"]
        if room["kept_mib"] == 0:
            self.skipTest("no NVML")
        row = rows["auto"]
        self.assertGreater(row["kept_mib"], 60000)
        self.assertLess(row["before_touch_mib"], 44000)
        for under, one in rows.items():
            add_figure("managed memory", under, f"{one['kept_mib']:,} MiB used, then "
                       f"{one['before_touch_mib']:,}; passes {one['pass_ms']} ms")

    def test_polling(self):
        """Who polls, or trains beside a watchdog, is not slower than with the real calls."""
        rows = {under: json.loads(self.one(under, "polling").output)
                for under in ("real calls", *programs.MODES)}
        for under, row in rows.items():
            add_figure("polling", under,
                       f"{row['polls_per_second']:,} polls a second, {row['polls_over_2_ms']} over "
                       f"2 ms, {row['frees_per_second']} frees; training {row['iterations_alone']:,} "
                       f"a second alone, {row['iterations_beside_watchdog']:,} beside a watchdog "
                       f"({row['looks_undone']:,} looks found work)")
        real = rows.pop("real calls")
        for under, row in rows.items():
            with self.subTest(under=under):
                for count in ("polls_per_second", "iterations_beside_watchdog"):
                    self.assertGreaterEqual(row[count], real[count] / 2)
                # A thread that loses its processor may be late now and then.
                self.assertLessEqual(row["polls_over_2_ms"], real["polls_over_2_ms"] + 2)

    def test_loop(self):
        for streams in ("1", "4"):
            for under in ("real calls", *programs.MODES):
                result = self.one(under, "loop", "--streams", streams, "--repetitions", "5")
                row = json.loads(result.output)
                peak = (f", reserved at most "
                        f"{result.statistics['process']['reserved_peak_bytes'] >> 20} MiB"
                        if result.statistics else f", {row['malloc_mib']} MiB")
                if result.statistics:  # the bound, and one allocation
                    process = result.statistics["process"]
                    self.assertLessEqual(process["reserved_peak_bytes"],
                                         1.15 * process["live_peak_bytes"] + (257 << 20)
                                         + process["reserve_extra_peak_bytes"])
                add_figure(f"loop, {streams} streams", under,
                           f"{row['malloc_us']} µs, {row['malloc_ratio']} times the kernels "
                           f"alone{peak}; asynchronous {row['async_ratio']} times, "
                           f"{row['async_mib']} MiB")

    def test_loop_with_copies(self):
        """A copy to page-locked memory stops the free behind it, unless it is over."""
        for copy in ("synchronised", "pending"):
            for under in ("real calls", *programs.MODES):
                result = self.one(under, "loop", "--copy", copy, "--repetitions", "3")
                row = json.loads(result.output)
                waits = f"; {result.waits()}" if result.statistics else ""
                add_figure(f"loop, copy {copy}", under,
                           f"{row['malloc_us']} µs, {row['malloc_ratio']} times the same without "
                           f"allocations; asynchronous {row['async_ratio']} times{waits}")
                if under == "auto":
                    with self.subTest(copy=copy):
                        waited = result.statistics["process"]["wait_calls"]
                        if copy == "synchronised":
                            self.assertEqual(waited, 0)
                        else:
                            self.assertGreater(waited, 0.9 * result.statistics["totals"]["frees"])

    def test_launches(self):
        for (what, threads), (without, within, ratio) in compare_launches.compare(
                "80", 3, CMP_FREE_SYNC="order").items():
            add_figure(f"{what}, {threads} threads", "order",
                       f"{without:.0f} ns without, {within:.0f} ns with, ratio {ratio:.3f}")

    def test_captures(self):
        def survivors(output: str) -> dict:
            rows = re.findall(r"(.*): survived (\d+) right (\d+) allocated (\d+)", output)
            return {name: tuple(map(int, counts)) for name, *counts in rows}

        without = survivors(self.one("real calls", "captures").output)
        for mode in programs.MODES:
            with self.subTest(mode=mode):
                within = survivors(self.one(mode, "captures").output)
                add_figure("captures", mode,
                           f"survived: {sum(c[0] for c in without.values())} without, "
                           f"{sum(c[0] for c in within.values())} with")
                for name, counts in without.items():
                    self.assertEqual(within[name][0], within[name][1], name)
                    for real, ours in zip(counts, within[name]):
                        self.assertGreaterEqual(ours, real, name)

    def test_full(self):
        for under in ("real calls", *programs.MODES):
            with self.subTest(under=under):
                result = self.one(under, "full", "--steps", "1500")
                add_figure("full", under, f"{result.output.strip()}, "
                           f"{result.number('seconds'):.1f} s")

    @unittest.skipUnless(HAS_TORCH, "PyTorch is not installed")
    def test_torch(self):
        for script, settings in (("torch_graphs.py", {}),
                                 ("torch_streams.py", UNCACHED)):
            command = (sys.executable, str(programs.HERE / script))
            without = programs.run(*command, preload=False, **settings)
            self.assertEqual(without.code, 0, without.errors)
            self.assertNotIn("False", without.output)
            for mode in programs.MODES:
                with self.subTest(script=script, mode=mode):
                    within = programs.run(*command, preload=True, CMP_FREE_SYNC=mode, **settings)
                    self.assertEqual(within.code, 0, within.errors)
                    self.assertEqual(within.output, without.output)
                    self.assertTrue(within.statistics["reached"])
                    add_figure(script, mode, f"the same results; {within.waits()}")


if __name__ == "__main__":
    if programs.gpu_count() == 0:
        programs.skip_all("no GPU")
    unittest.main()
