"""compare_all.py on the simulated CUDA, in its smallest form: what it writes, not its times."""

import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import unittest

import plot_against
import programs
from against import alternatives, rows

SCRIPT = programs.HERE / "compare_all.py"
# Those that are on every machine: CUB needs a toolkit, and other hosts' allocators may be missing.
HERE = ("cmp", "cmp-none", "cmp-library", "real", "async", "malloc")


# What the adaptor of PyTorch uses of it.
TORCH_STAND_IN = """
#include <cuda_runtime_api.h>
namespace c10::cuda::CUDACachingAllocator {
struct Allocator {};
inline Allocator* get() { static Allocator one; return &one; }
inline void init(int) {}
inline void* raw_alloc_with_stream(size_t bytes, cudaStream_t) {
  void* block = nullptr;
  cudaMalloc(&block, bytes);
  return block;
}
inline void raw_delete(void* block) { cudaFree(block); }
}
"""


def command(folder: str, *arguments: str) -> list[str]:
    out = str(pathlib.Path(folder, "out"))
    return [sys.executable, str(SCRIPT), "--simulated", "--output", out, *arguments]


def write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


class CompareAll(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                command(folder, "--only", ",".join((*HERE, "async-max"))), capture_output=True,
                text=True, timeout=200, check=False,
                env=os.environ | {"CMPSIM_FAIL": "cudaMemPoolSetAttribute:1+:801"})
            cls.said = done.stdout + done.stderr
            assert done.returncode == 0, cls.said
            cls.outcome = json.loads(pathlib.Path(folder, "out.json").read_text(encoding="utf-8"))
            cls.table = pathlib.Path(folder, "out.md").read_text(encoding="utf-8")

    def test_says_where_and_when(self):
        for name in ("date", "commit", "command", "seconds"):
            self.assertTrue(self.outcome[name], name)
        self.assertTrue(self.outcome["complete"], self.said)
        self.assertEqual(self.outcome["machine"]["device"], "Simulated CUDA device")
        self.assertGreater(self.outcome["machine"]["cuda_driver"], 0)
        self.assertEqual(self.outcome["said"], {})

    def test_the_plot_finds_its_figures(self):
        found = plot_against.pairs(self.outcome)
        self.assertGreater(len({count for count, threads, _ in found if threads == 1}), 2)
        self.assertIn((4 << 10, 16), [(count, threads) for count, threads, _ in found])
        self.assertTrue(all(cells["cmp"]["ns"] > 0 for _, _, cells in found))
        self.assertLessEqual(set(plot_against.SHOWN), {one.name for one in alternatives.every()})

    def test_every_row_has_every_alternative(self):
        wanted = {(part.name, row.name) for part in rows.parts(
            rows.SIMULATED, True, {"churn": pathlib.Path()}) for row in part.rows}
        found = [(row["part"], row["row"]) for row in self.outcome["rows"]]
        self.assertEqual(set(found), wanted)
        self.assertEqual(len(found), len(wanted))
        for row in self.outcome["rows"]:
            for name in HERE:
                with self.subTest(row=row["row"], part=row["part"], alternative=name):
                    cell = row["cells"][name]
                    self.assertNotIn("missing", cell)
                    self.assertNotIn("failed", cell)
                    self.assertEqual(len(cell["runs"]), rows.SIMULATED.repetitions)

    def test_figures_agree_with_each_other(self):
        for row in self.outcome["rows"]:
            ours = row["cells"]["cmp"]["ns"]
            for name in HERE:
                cell = row["cells"][name]
                self.assertGreater(cell["least_ns"], 0)
                self.assertEqual(cell["ns"], statistics.median(cell["runs"]))
                self.assertEqual((cell["least_ns"], cell["most_ns"]),
                                 (min(cell["runs"]), max(cell["runs"])))
                self.assertAlmostEqual(cell["ratio"], cell["ns"] / ours)
                self.assertEqual("alone_ns" in cell, row["part"] in ("loop", "thread"))
                self.assertEqual("worst_ns" in cell, row["part"].startswith("first"))

    def test_what_is_missing_is_listed_with_the_reason(self):
        reason = self.outcome["alternatives"]["async-max"]["missing"]
        self.assertEqual(reason, "the threshold of its pool cannot be set")
        for row in self.outcome["rows"]:
            self.assertEqual(row["cells"]["async-max"], {"missing": reason})
        self.assertIn(f"| async-max | cudaMallocAsync, its pool keeps everything | {reason} |",
                      self.table)

    def test_table_has_all(self):
        for row in self.outcome["rows"]:
            self.assertIn(f"| {row['row']} |", self.table)
        self.assertIn(" 1x |", self.table)
        self.assertIn(self.table.strip(), self.said)

    def test_says_when_repetitions_differ(self):
        noise = self.outcome["noise"]
        cells = [cell for row in self.outcome["rows"] for cell in row["cells"].values()
                 if "ns" in cell]
        self.assertEqual(noise["figures"], len(cells))
        self.assertEqual(noise["noisy"],
                         sum(cell["most_ns"] > 1.5 * cell["least_ns"] for cell in cells))
        self.assertEqual(noise["too_noisy"], "TOO NOISY" in noise["words"])

    def test_an_alternative_that_fails_stops_no_other(self):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                command(folder, "--only", "real,malloc,pairs,hand-over"), capture_output=True,
                text=True, timeout=200, check=False,
                env=os.environ | {"CMPSIM_FAIL": "cudaMalloc:5+:2"})
            self.assertEqual(done.returncode, 0, done.stderr)
            outcome = json.loads(pathlib.Path(folder, "out.json").read_text(encoding="utf-8"))
        for row in outcome["rows"]:
            self.assertIn("ns", row["cells"]["malloc"])
            self.assertRegex(row["cells"]["real"]["missing"], "an allocation: error 2|failed twice")
        self.assertIn("real failed in pairs", done.stderr)
        self.assertIn("error 2", outcome["said"]["real"])

    def test_a_run_that_is_cut_short_leaves_what_it_has(self):
        with tempfile.TemporaryDirectory() as folder:
            process = subprocess.Popen(
                command(folder, "--only", "real,malloc,pairs", "--repetitions", "100000"),
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            out = pathlib.Path(folder, "out.json")
            end = time.monotonic() + 100
            while not out.exists() and time.monotonic() < end:
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(100), 143)
            outcome = json.loads(out.read_text(encoding="utf-8"))
        self.assertFalse(outcome["complete"])
        self.assertIn("ns", outcome["rows"][0]["cells"]["malloc"])

    def test_no_time(self):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(command(folder, "--only", "real,malloc,pairs", "--limit", "0"),
                                  capture_output=True, text=True, timeout=200, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
            outcome = json.loads(pathlib.Path(folder, "out.json").read_text(encoding="utf-8"))
        self.assertFalse(outcome["complete"])
        self.assertEqual(outcome["rows"][0]["cells"]["malloc"], {"missing": "no time was left"})

    def test_finds_the_packages_of_others(self):
        """Stand-ins: one that works, one that does not compile, then one without its library."""
        with tempfile.TemporaryDirectory() as folder:
            torch, rmm = pathlib.Path(folder, "torch"), pathlib.Path(folder, "librmm")
            for path in (torch / "__init__.py", rmm / "__init__.py"):
                write(path, "")
            write(torch / "include" / "c10" / "cuda" / "CUDACachingAllocator.h", TORCH_STAND_IN)
            write(rmm / "include" / "rmm" / "cuda_stream_view.hpp", "#error of another release\n")
            for library in (torch / "lib" / "libc10.so", torch / "lib" / "libc10_cuda.so",
                            rmm / "lib64" / "librmm.so"):
                library.parent.mkdir(exist_ok=True)
                subprocess.run([os.environ.get("CXX", "c++"), "-shared", "-o", str(library), "-x",
                                "c++", "/dev/null"], check=True, timeout=100)
            found = {}
            for _ in range(2):
                done = subprocess.run(
                    command(folder, "--only", "torch,rmm-pool,pairs"), capture_output=True,
                    text=True, timeout=200, check=False,
                    env=os.environ | {"PYTHONPATH": folder})
                self.assertEqual(done.returncode, 0, done.stderr)
                outcome = json.loads(pathlib.Path(folder, "out.json").read_text(encoding="utf-8"))
                for name, one in outcome["alternatives"].items():
                    found.setdefault(name, []).append(one["missing"])
                (rmm / "lib64" / "librmm.so").unlink(missing_ok=True)
        self.assertEqual(found["torch"], [None, None])
        self.assertGreater(outcome["rows"][0]["cells"]["torch"]["ns"], 0)
        self.assertRegex(found["rmm-pool"][0], "does not compile .*error")
        self.assertEqual(found["rmm-pool"][1], "the package librmm has no librmm.so")


if __name__ == "__main__":
    unittest.main()
