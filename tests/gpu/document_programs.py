"""Runs what the pages about frameworks and tools show, commands and programs, on a machine with a GPU.
What needs something that is not installed is skipped by its name. One line a command: its exit code,
the pool's hit rate where the pool was preloaded, its time.

  CMP_BUILD=FOLDER document_programs.py [--simulated] [PAGE...]

Build first. Trials are shortened to one run of each kind, so that all of it takes two minutes; the
pages run beside each other, so the times say nothing. --simulated: what runs on the simulated CUDA.
RMM is found where CMake found it (CMP_RMM), or in this Python.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib.util
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import programs

ROOT = programs.HERE.parent.parent
DOCS = ROOT / "scripts" / "docs"
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "tests" / "docs"))

from page_commands import lines_of  # noqa: E402

LIMIT_S = 145  # for all of it
MOST_S = 100  # for one command
BEGIN = time.monotonic()
CHURN = f"#!/bin/sh\nexec {shlex.quote(str(programs.BUILD / 'churn'))} 2 200\n"
SHORT = "-n 1 --modes auto --no-fill"  # of trials
# What train.py and app.py of a page are here, with their arguments.
STAND_INS = {  # the longest first
    "with/pytorch.md": {"train.py": ("torch_train.py", "20")},
    "with/jax-and-numba.md": {"train.py": ("jax_run.py", "20"), "app.py": ("numba_run.py", "50")},
    "with/profilers.md": {},
    "statistics.md": {},
    "several-processes.md": {},
    "with/cpp.md": {},
    "with/cupy.md": {"app.py": ("cupy_run.py",)},
    "with/rmm.md": {},
}
MODULES = {"torch": "torch", "cupy": "cupy", "jax": "jax", "numba": "numba"}
# What the first words of a command are, if not a program to look for.
OURS = ("cmp-preload", "build/", "cmake --build")


class Page:
    """A folder with what the page's commands expect in it, and how they run there."""

    def __init__(self, name: str, place: pathlib.Path, prefix: pathlib.Path, simulated: bool) -> None:
        self.name = name
        self.simulated = simulated
        self.folder = place / pathlib.Path(name).stem
        self.folder.mkdir()
        self.prefix = prefix
        self.stand_ins = STAND_INS[name]
        self.unbuilt: str | None = None  # why ./app is not there
        for linked in ("scripts", "tests"):
            (self.folder / linked).symlink_to(ROOT / linked)
        (self.folder / "build").symlink_to(programs.BUILD)
        for file, (source, *arguments) in self.stand_ins.items():
            (self.folder / file).write_text(
                f"import runpy, sys\nsys.argv[1:] = {arguments!r}\n"
                f"runpy.run_path({str(programs.HERE / source)!r}, run_name='__main__')\n")
        if name == "with/rmm.md" and not simulated:
            self.unbuilt = self._build_rmm()
        else:
            (self.folder / "app").write_text(CHURN)
            (self.folder / "app").chmod(0o755)
        self.env = self._environment(place)

    def _environment(self, place: pathlib.Path) -> dict[str, str]:
        env = programs.environment(self.simulated)
        folders = [str(self.prefix / "lib"), *getattr(self, "rmm_folders", [])]
        env["LD_LIBRARY_PATH"] = ":".join([*folders, *filter(None, [env.get("LD_LIBRARY_PATH")])])
        env["PATH"] = f"{place / 'bin'}:{programs.BUILD}:{env['PATH']}:/usr/local/cuda/bin"
        env["PYTHONPATH"] = f"{place / 'site'}:{programs.HERE}"
        env["PYTHONDONTWRITEBYTECODE"] = "1"
        env["PKG_CONFIG_PATH"] = str(self.prefix / "lib" / "pkgconfig")
        # No other page's programs may come to this one's daemon.
        env["CUDA_MPS_PIPE_DIRECTORY"] = env["CUDA_MPS_LOG_DIRECTORY"] = str(self.folder / "mps")
        (self.folder / "mps").mkdir()
        return env

    def _build_rmm(self) -> str | None:
        """./app, a program with RMM's default resource, and ./rmm_resource, the page's own. What is
        missing, if anything."""
        packages = rmm_packages()
        if packages is None:
            return "RMM"
        includes = [packages / "librmm" / "include" / "rapids", packages / "librmm" / "include",
                    packages / "rapids_logger" / "include", cuda_include()]
        folders = [packages / "librmm" / "lib64", packages / "rapids_logger" / "lib64",
                   programs.BUILD]
        self.rmm_folders = [str(folder) for folder in folders]
        runtime = programs.runtime_folder() or "/usr/local/cuda/lib64"
        for source, program in ((programs.HERE / "rmm_run.cpp", "app"),
                                (DOCS / "examples" / "rmm_resource.cpp", "rmm_resource")):
            made = subprocess.run(
                ["g++", "-w", "-std=c++20", str(source), "-o", str(self.folder / program),
                 *(f"-I{folder}" for folder in [ROOT, *includes]),
                 *(f"-L{folder}" for folder in [*folders, runtime]), "-lrmm", "-lrapids_logger",
                 "-lcmp", "-lcudart", *(f"-Wl,-rpath,{folder}" for folder in [*folders, runtime])],
                capture_output=True, text=True, check=False)
            if made.returncode != 0:
                return "RMM of 26.06 or later: " + last_line(made.stderr)
        return None

    def lacks(self, line: str) -> str | None:
        """What a command needs that is not here."""
        words = re.sub(r"^(\w+=\S* )+", "", line)
        if self.name == "with/profilers.md" and self.simulated and not words.startswith(OURS):
            return "GPU"
        if self.unbuilt and re.search(r"(^|\s)\./app", words):
            return self.unbuilt
        if words.startswith("echo quit"):
            words = words.partition("| ")[2]
        for word in ("srun", "mpirun", "torchrun", "docker", "apptainer"):
            if re.search(rf"(^|\s){word}\s", words) and shutil.which(word) is None:
                return word
        module = self.module_of(words)
        if module is not None and importlib.util.find_spec(module) is None:
            return module
        if module is not None and self.simulated:
            return "GPU"
        program = words.split()[0]
        if program.startswith(("./", "build-user/")):
            return None if (self.folder / program).exists() else program
        if words.startswith(("python ", *OURS)):
            return None
        if self.simulated and program in ("nvcc", "nvidia-cuda-mps-control"):
            return "GPU"
        needed = [program, *(["pkg-config"] if "pkg-config" in words else [])]
        return next((one for one in needed if shutil.which(one, path=self.env["PATH"]) is None), None)

    def module_of(self, words: str) -> str | None:
        """The framework that a command in Python uses."""
        found = re.search(r"\bpython (?:scripts/docs/examples/)?(\w+\.py)", words)
        if found is None:
            return None
        source = self.stand_ins.get(found[1], (found[1],))[0]
        return MODULES[source.partition("_")[0]]

    def run(self, line: str, **more: str) -> str:
        """Runs a command as the page has it; what to print."""
        left = LIMIT_S - (time.monotonic() - BEGIN)
        if line.startswith("echo quit"):
            left = max(left, 5)  # no daemon is left behind
        if left < 1:
            return "not run: no time is left"
        command = line.replace("/path/to/", f"{programs.BUILD}/").replace("/opt/cmp", str(self.prefix))
        command = command.replace("cmp-preload trial", f"cmp-preload trial {SHORT}")
        command = command.replace(f"LD_LIBRARY_PATH={self.prefix}/lib ", "")  # it has more here
        statistics = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        env = self.env | {"CMP_STATS": f"{statistics}/%p.json"} | more
        begin = time.monotonic()
        # Files, since a daemon that it leaves may keep what it was given open.
        said = [statistics / "stdout", statistics / "stderr"]
        with said[0].open("w") as stdout, said[1].open("w") as stderr:
            process = subprocess.Popen(["bash", "-c", command], cwd=self.folder, env=env,
                                       stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
                                       start_new_session=True)
            try:
                process.wait(min(left, MOST_S))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return f"FAILED: took longer than {min(left, MOST_S):.0f} s"
        output, errors = (file.read_text(errors="replace") for file in said)
        seconds = time.monotonic() - begin
        result = f"exit {process.returncode}  hit rate {hit_rate(statistics, output, errors)}  "
        result += f"{seconds:.1f} s"
        if process.returncode != 0:
            result = f"FAILED: {result}: {last_line(errors) or last_line(output)}"
        return result

    def run_all(self) -> list[str]:
        rows = []
        for line in lines_of(DOCS / self.name):
            missing = self.lacks(line)
            if missing is not None:
                rows.append(f"{self.name}: skipped, no {missing}  $ {line}")
                continue
            rows.append(f"{self.name}: {self.run(line)}  $ {line}")
            if line.startswith("python scripts/docs/examples/"):
                rows.append(self.preloaded(line))
        if (self.folder / "rmm_resource").exists():
            rows.append(f"{self.name}: {self.run('./rmm_resource')}  $ ./rmm_resource")
            rows.append(self.preloaded("./rmm_resource"))
        return rows

    def preloaded(self, line: str) -> str:
        """What has the pool as a library, which prints no statistics, in the preload's pool."""
        return f"{self.name}: {self.run(line, LD_PRELOAD=str(programs.LIBRARY))}  (the same, preloaded)"


def rmm_packages() -> pathlib.Path | None:
    """The folder with RMM's packages librmm and rapids_logger."""
    cache = (programs.BUILD / "CMakeCache.txt").read_text(encoding="utf-8")
    found = re.search(r"^CMP_RMM:[A-Z]+=(/.*)$", cache, re.M)
    if found and (pathlib.Path(found[1]) / "librmm").is_dir():
        return pathlib.Path(found[1])
    spec = importlib.util.find_spec("librmm")
    return pathlib.Path(list(spec.submodule_search_locations)[0]).parent if spec else None


def cuda_include() -> str:
    cache = (programs.BUILD / "CMakeCache.txt").read_text(encoding="utf-8")
    return re.search(r"^CMP_CUDA_INCLUDE:[A-Z]+=(.*)$", cache, re.M)[1]


def last_line(text: str) -> str:
    return next((line.strip()[-200:] for line in reversed(text.splitlines()) if line.strip()), "")


def hit_rate(folder: pathlib.Path, output: str, errors: str) -> str:
    """Of the process that allocated most, by its statistics; of a trial, by its table."""
    for text in (output, errors):
        if row := re.search(r"^auto .* ([\d.]+%)", text, re.M):
            return row[1]
    most = (0, 0.0)
    for file in folder.glob("*.json"):
        totals = json.loads(file.read_text(encoding="utf-8")).get("totals") or {}
        if totals.get("hit_rate") is not None:
            most = max(most, (totals["requests"], totals["hit_rate"]))
    if most[0]:
        return f"{100 * most[1]:.1f}%"
    said = re.search(r"\(([\d.]+%)\) without a real call", errors)
    return said[1] if said else "-"


def prepare(place: pathlib.Path) -> pathlib.Path:
    """A Python, the package as the wheel has it, and an installation, whose prefix is returned."""
    (place / "bin").mkdir()
    (place / "bin" / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    (place / "bin" / "python").chmod(0o755)
    package = place / "site" / "cmp_preload"
    package.mkdir(parents=True)
    for path in (ROOT / "scripts" / "cmp_preload").iterdir():
        (package / path.name).symlink_to(path)
    (package / "libcmp.so").symlink_to(programs.BUILD / "libcmp.so")
    (package / programs.LIBRARY.name).symlink_to(programs.LIBRARY)
    prefix = place / "opt"
    # The component is all there is; without it the list would be overwritten by which users uninstall.
    subprocess.run(["cmake", "--install", str(programs.BUILD), "--prefix", str(prefix),
                    "--component", "Unspecified"], stdout=subprocess.DEVNULL, check=True)
    for folder in prefix.glob("lib*"):  # where distributions have another name for it
        if folder.name != "lib":
            (prefix / "lib").symlink_to(folder)
    return prefix


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=", ".join(STAND_INS))
    arguments = parser.parse_args()
    if not arguments.simulated and programs.gpu_count() == 0:
        programs.skip_all("no GPU")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        prefix = prepare(place)

        def of(name: str) -> list[str]:
            return Page(name, place, prefix, arguments.simulated).run_all()

        with concurrent.futures.ThreadPoolExecutor(1 if arguments.simulated else 4) as workers:
            for found in workers.map(of, arguments.pages or STAND_INS):
                print("\n".join(found), flush=True)
                rows += found
    failed = sum("FAILED" in row for row in rows)
    print(f"{len(rows)} rows, {failed} failed, {sum('skipped' in row for row in rows)} skipped, "
          f"{time.monotonic() - BEGIN:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
