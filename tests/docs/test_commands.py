"""Runs every command that the documentation shows between ```sh fences, on the simulated CUDA, each page
in a folder of its own; what cannot be run here is listed in NOT_RUN with the reason.

    test_commands.py PROJECT BUILD
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
from page_commands import lines_of  # noqa: E402

ROOT = pathlib.Path(sys.argv.pop(1)).resolve()
BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "scripts/docs").rglob("*.md"))]

INSTALLS = "scripts/test-install does the same, into a folder of its own"
BUILDS = "configures, builds or tests the folder that this test uses"
ENGINE = "needs a container engine"
ON_A_GPU = "tests/gpu/document_programs.py runs it where there is a GPU and what it needs"
WHEELS = "needs a GPU, and packages of others; sim.gallery compares the commands"
# Line, or its beginning: why it is not run.
NOT_RUN = {
    "scripts/quickstart": BUILDS,
    "scripts/test": BUILDS,
    "cmake --preset": BUILDS,
    "cmake --build": BUILDS,
    "ctest": BUILDS,
    "scripts/generate-driver-table": "writes into the source; docs.driver_table compares",
    "sudo cmake --install": INSTALLS,
    "cmake --install": INSTALLS,
    "LD_PRELOAD=libcmp_preload.so": INSTALLS,
    "python3 -m venv": "scripts/packaging/try-in-root does, in a root of its own",
    "LD_PRELOAD=$HOME/.local/": INSTALLS,
    "xargs": INSTALLS,
    "docker": ENGINE,
    "pip install xgboost": WHEELS,
    "cmp-preload trial -- python3 tests/gpu/": WHEELS,
    "cmp-preload trial -- python3 -m warp": WHEELS,
    "DEV=CUDA": WHEELS,
    "TI_ARCH=cuda": WHEELS,
    "PYTORCH_NO_CUDA_MEMORY_CACHING=1 cmp-preload": WHEELS,
    "CMP_BUILD=build python3 tests/gpu/gallery.py": WHEELS,
    "python3 tests/gpu/gallery.py": WHEELS,
    "apptainer": ENGINE,
    "python scripts/docs/examples/": ON_A_GPU,
    "cmake -S": INSTALLS,
    "g++": INSTALLS,
    "build-user/": INSTALLS,
    "nvcc": ON_A_GPU,
    "LD_LIBRARY_PATH=/opt/cmp/lib": ON_A_GPU,
    "nsys": ON_A_GPU,
    "ncu": ON_A_GPU,
    "compute-sanitizer": ON_A_GPU,
    "nvidia-cuda-mps-control": ON_A_GPU,
    "echo quit | nvidia-cuda-mps-control": ON_A_GPU,
}
# What stands for something of the reader's.
PLACES = {
    "/path/to/": f"{BUILD}/",
    "FILE...": "stats.json trace",
    "TRACE": "trace",
}
# Kinds of blocks that show a part of a program.
PROGRAMS = ("c++", "cmake", "dockerfile", "python", "yaml")
EXAMPLES = ROOT / "scripts" / "docs" / "examples"
# Stands for srun, mpirun and torchrun: one rank.
LAUNCHER = """#!/bin/sh
export RANK=3
while :; do
  case $1 in
    -n | --nproc-per-node) shift 2 ;;
    --no-python) shift ;;
    *.py) exec python "$@" ;;
    *) exec "$@" ;;
  esac
done
"""
APP = f"#!/bin/sh\nexec {BUILD}/churn 2 100\n"
# What shake is to hold back must last, and be held, in the simulated CUDA's own time, which calls
# that take as long as the real ones would wait for.
ORDERED = f"""#!/bin/sh
unset CMPSIM_COSTS
export CMPSIM_HOLD_NS=5000000 LD_PRELOAD={BUILD}/programs/virtual_clock.so${{LD_PRELOAD:+:$LD_PRELOAD}}
exec {BUILD}/races right-event
"""
TRAIN = 'import subprocess\nsubprocess.run(["./app"], check=True)\n'
SERVED = re.compile(r"^cmp: churn .* without a real call$", re.M)


def reason_of(line):
    found = [start for start in NOT_RUN if re.match(re.escape(start) + r"(?![\w-])", line)
             or start.endswith("/") and line.startswith(start)]
    return found[0] if found else None


def write_script(path, text):
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


class Commands(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.holder = tempfile.TemporaryDirectory(prefix="cmp-commands-")
        bin_folder = pathlib.Path(cls.holder.name) / "bin"
        bin_folder.mkdir()
        for name in ("srun", "mpirun", "torchrun"):
            write_script(bin_folder / name, LAUNCHER)
        (bin_folder / "python").symlink_to(sys.executable)
        cls.environment = {
            name: value for name, value in os.environ.items()
            if not name.startswith(("CMP_", "CMPSIM_", "LD_"))
        }
        cls.environment["LD_LIBRARY_PATH"] = str(BUILD / "sim")
        cls.environment["CMPSIM_COSTS"] = "h200"
        cls.environment["PATH"] = f"{bin_folder}:{BUILD}:{cls.environment['PATH']}"
        cls.environment["PYTHONDONTWRITEBYTECODE"] = "1"

    @classmethod
    def tearDownClass(cls):
        cls.holder.cleanup()

    def run_line(self, line, folder, **more):
        return subprocess.run(
            ["bash", "-c", line], cwd=folder, env={**self.environment, **more}, timeout=200,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            encoding="utf-8", errors="replace", check=False)

    def folder_for(self, page):
        folder = pathlib.Path(self.holder.name) / page.relative_to(ROOT).with_suffix("")
        folder.mkdir(parents=True)
        for name in ("scripts", "tests"):
            (folder / name).symlink_to(ROOT / name)
        (folder / "build").symlink_to(BUILD)
        write_script(folder / "app", APP)
        write_script(folder / "ordered", ORDERED)
        for name in ("train.py", "app.py"):
            (folder / name).write_text(TRAIN, encoding="utf-8")
        (folder / "result.bin").write_text("as ever", encoding="utf-8")
        made = self.run_line("LD_PRELOAD=build/libcmp_preload.so ./app", folder,
                             CMP_STATS="stats.json", CMP_TRACE="trace")
        self.assertEqual(made.returncode, 0, made.stderr)
        return folder

    def test_each_works(self):
        """A trial that several pages show, once."""
        count = 0
        trials = set()
        for page in PAGES:
            lines = [line for line in lines_of(page) if reason_of(line) is None
                     and line not in trials]
            trials |= {line for line in lines if "cmp-preload trial" in line}
            if not lines:
                continue
            folder = self.folder_for(page)
            for line in lines:
                count += 1
                with self.subTest(page=page.name, line=line):
                    self.check(line, folder)
        self.assertGreater(count, 15)

    def check(self, line, folder):
        for place, real in PLACES.items():
            line = line.replace(place, real)
        if line.startswith("cmp-preload shake"):  # APP has one thing to say of this: no verdict
            line = line.replace("./app", "./ordered")
        more = {}
        if line.startswith("LD_PRELOAD="):  # which says nothing by itself
            more["CMP_STATS"] = "1"
        done = self.run_line(line, folder, **more)
        said = f"{line}\n{done.stdout}\n{done.stderr}"
        self.assertEqual(done.returncode, 0, said)
        self.assertNotIn("cmp: every call", done.stderr, said)
        if re.search(r"\bLD_PRELOAD=", line):
            self.assertRegex(done.stderr, SERVED, said)
        if "--reports reports" in line:
            reports = list((folder / "reports").glob("*.json"))
            self.assertTrue(any(".3." in path.name for path in reports), said)

    def test_reasons_are_of_lines_that_are_there(self):
        used = {reason_of(line) for page in PAGES for line in lines_of(page)}
        self.assertEqual(set(NOT_RUN) - used, set())

    def test_programs_shown_are_parts_of_those_that_run(self):
        """Whole lines of one file of scripts/docs/examples."""
        examples = [f"\n{path.read_text(encoding='utf-8')}" for path in EXAMPLES.iterdir()]
        count = 0
        for page in PAGES:
            for block in re.findall(rf"^```(?:{'|'.join(map(re.escape, PROGRAMS))})\n(.*?)^```$",
                                    page.read_text(encoding="utf-8"), re.M | re.S):
                count += 1
                with self.subTest(page=page.name, block=block):
                    self.assertTrue(any(f"\n{block}" in text for text in examples))
        self.assertGreater(count, 8)
        shown = list(lines_of(ROOT / "scripts" / "docs" / "with" / "mpi-and-containers.md"))
        for line in (EXAMPLES / "job.sh").read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                self.assertIn(line, shown)

    def test_every_block_says_what_it_is(self):
        """A fence without a word would be run by nobody."""
        for page in PAGES:
            fences = re.findall(r"^ *```(.*)$", page.read_text(encoding="utf-8"), re.M)
            self.assertEqual(len(fences) % 2, 0, page)
            self.assertLessEqual(set(fences[::2]), {"sh", "text", *PROGRAMS}, page)
            self.assertEqual(set(fences[1::2]), {""} if fences else set(), page)


if __name__ == "__main__":
    unittest.main()
