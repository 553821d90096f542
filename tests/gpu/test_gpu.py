"""What must be true on a GPU: programs give the same results without and with the pool.

Skipped where there is no GPU. Prints time and real calls side by side; asserts no time.
"""

import importlib.util
import subprocess
import sys
import unittest

import programs


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


class Gpu(unittest.TestCase):
    def compare(self, *command: str, **settings: str) -> tuple[programs.Result, programs.Result]:
        without = programs.run(*command, preload=False, **settings)
        with_pool = programs.run(*command, preload=True, **settings)
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

    def test_thrust(self):
        made = subprocess.run(["cmake", "--build", str(programs.BUILD), "--target",
                               "thrust_programs"], capture_output=True, text=True, check=False)
        if made.returncode != 0 and "thrust_programs" in made.stderr:
            self.skipTest("no nvcc")
        self.assertEqual(made.returncode, 0, made.stdout)
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

    def test_ipc(self):
        _, with_pool = self.compare(str(programs.BUILD / "ipc"))
        self.assertGreaterEqual(with_pool.statistics["process"]["unpooled_blocks"], 8)

    def test_questions(self):
        _, with_pool = self.compare(str(programs.BUILD / "questions"))
        self.assertGreater(with_pool.statistics["totals"]["hit_rate"], 0.3)

    @unittest.skipUnless(importlib.util.find_spec("torch"), "PyTorch is not installed")
    def test_torch_with_workers(self):
        _, with_pool = self.compare(sys.executable, str(programs.HERE / "torch_loader.py"),
                                    PYTORCH_NO_CUDA_MEMORY_CACHING="1")
        self.assertGreater(with_pool.statistics["totals"]["hit_rate"], 0.5)

    def test_edges(self):
        _, with_pool = self.compare(str(programs.BUILD / "edges"))
        self.assertGreater(with_pool.statistics["process"]["capture_real_calls"], 0)
        self.assertEqual(with_pool.statistics["process"]["double_frees"], 1)

    def test_fill(self):
        _, with_pool = self.compare(str(programs.BUILD / "churn"), "4", "500", CMP_FILL="0xAB")
        self.assertGreater(with_pool.statistics["totals"]["hit_rate"], 0.5)

    @unittest.skipUnless(importlib.util.find_spec("torch"), "PyTorch is not installed")
    def test_torch(self):
        train = (sys.executable, str(programs.HERE / "torch_train.py"), "50")
        results = self.compare(*train, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
        side_by_side("PyTorch training, uncached", *results)
        self.assertGreater(results[1].statistics["totals"]["hit_rate"], 0.8)
        cached = programs.run(*train, preload=False)
        self.assertEqual(cached.output, results[0].output)
        print(f"PyTorch training, PyTorch's own cache: {cached.number('seconds'):.3f} s")


if __name__ == "__main__":
    if programs.gpu_count() == 0:
        programs.skip_all("no GPU")
    unittest.main()
