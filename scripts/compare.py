"""Runs a program without and with the preload and prints both side by side.

  compare.py [--build FOLDER] [--simulated] [--runs N] -- PROGRAM [ARGUMENT...]

Compares what the program prints on stdout and its exit code, takes the best time of N runs each, in
turn, and reads the counters of the preloaded run. Where there is no GPU, or with --simulated, the
program runs on the simulated CUDA of the build folder (it must use the shared runtime).
"""

import argparse
import ctypes
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time


def has_gpu() -> bool:
    """True if the real driver is there and finds a device."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    if hasattr(driver, "simLaunch"):  # the simulated one, found by LD_LIBRARY_PATH
        return False
    count = ctypes.c_int()
    return (driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
            and count.value > 0)


def runtime_folder(build: pathlib.Path) -> str | None:
    """The folder of the shared libcudart that the build found."""
    for line in (build / "CMakeCache.txt").read_text().splitlines():
        if line.startswith("CMP_CUDART:") and not line.endswith("NOTFOUND"):
            return str(pathlib.Path(line.split("=", 1)[1]).resolve().parent)
    return None


def environment(build: pathlib.Path, simulated: bool) -> dict[str, str]:
    """The environment of both runs."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("CMP_")}
    folder = str(build / "sim") if simulated else runtime_folder(build)
    if folder:
        env["LD_LIBRARY_PATH"] = ":".join(filter(None, [folder, env.get("LD_LIBRARY_PATH")]))
    if simulated:
        env.setdefault("CMPSIM_MEMORY", "8G")
        env.setdefault("CMPSIM_COSTS", "h200")
    return env


class Run:
    """One run of the program."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        begin = time.perf_counter()
        try:
            done = subprocess.run(command, env=env, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, check=False)
        except OSError as error:
            sys.exit(f"compare: cannot run {command[0]}: {error.strerror}")
        self.seconds = time.perf_counter() - begin
        self.code = done.returncode
        self.output = done.stdout
        self.errors = done.stderr.decode(errors="replace")
        for line in self.errors.splitlines():
            words = line.split()
            if "seconds" in words:  # the program's own time, without its start
                self.seconds = float(words[words.index("seconds") + 1])


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Run a program without and with the preload, side by side.")
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--simulated", action="store_true", help="use the simulated CUDA")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("command", nargs="+", metavar="PROGRAM [ARGUMENT...]")
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    library = build / "libcmp_preload.so"
    if not library.exists():
        sys.exit(f"compare: {library} is not there; build first")
    simulated = arguments.simulated or not has_gpu()
    env = environment(build, simulated)

    print(f"running {arguments.command[0]} {2 * arguments.runs} times", file=sys.stderr)
    without: list[Run] = []
    with_pool: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        statistics_file = os.path.join(folder, "statistics.json")
        # LD_PRELOAD is a list of names separated by colons and spaces: none may be in the path.
        link = os.path.join(folder, "libcmp_preload.so")
        os.symlink(library, link)
        preloaded = env | {"LD_PRELOAD": ":".join(filter(None, [link,
                                                                env.get("LD_PRELOAD")])),
                           "CMP_STATS": statistics_file}
        for _ in range(arguments.runs):
            without.append(Run(arguments.command, env))
            with_pool.append(Run(arguments.command, preloaded))
            if without[-1].code != 0 or with_pool[-1].code != 0:
                break
        if without[-1].code != 0:
            sys.exit(f"compare: {arguments.command[0]} fails without the preload, exit code "
                     f"{without[-1].code}:\n{without[-1].errors}")
        try:
            with open(statistics_file, encoding="utf-8") as file:
                statistics = json.load(file)
        except OSError:
            sys.exit("compare: the program wrote no statistics; it did not end normally, or made "
                     "no CUDA call:\n" + with_pool[-1].errors)
    if not statistics["reached"]:
        print("compare: the pool was not reached:", statistics["reason"])
        return 1
    totals = statistics["totals"]
    process = statistics["process"]
    calls = totals["requests"] + totals["frees"] + totals["real_frees"]
    equal = all(run.output == without[0].output and run.code == without[0].code
                for run in without + with_pool)
    times = [min(run.seconds for run in runs) for runs in (without, with_pool)]

    where = "the simulated CUDA (its times are a table's, not a GPU's)" if simulated else "the GPU"
    print(f"{' '.join(arguments.command)}, on {where}, best of {len(without)} runs each:\n")
    rows = [
        ("", "without", "with the pool"),
        ("time", f"{times[0]:.3f} s", f"{times[1]:.3f} s ({times[0] / times[1]:.2f} times faster)"),
        ("real cudaMalloc and cudaFree calls", f"{calls:,}",
         f"{process['real_malloc_calls'] + process['real_free_calls']:,}"),
        ("allocations without a real call", "0.0%", f"{100 * totals['hit_rate']:.1f}%"),
        ("exit code", str(without[-1].code), str(with_pool[-1].code)),
        ("results", "", "equal" if equal else "DIFFERENT"),
    ]
    for name, left, right in rows:
        print(f"  {name:<36}{left:>12}   {right}")
    for run, name in ((without[-1], "without"), (with_pool[-1], "with the pool")):
        if run.code != 0:
            print(f"\nlast words {name}:\n{run.errors}")
    return 0 if equal and without[-1].code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
