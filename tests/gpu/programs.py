"""Running programs of the build folder on a GPU or on the simulated CUDA."""

import ctypes
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

BUILD = pathlib.Path(os.environ.get("CMP_BUILD", "build")).resolve()
LIBRARY = BUILD / "libcmp_preload.so"
CARELESS = BUILD / "libcareless_pool.so"
HERE = pathlib.Path(__file__).resolve().parent
SKIPPED = 77
# The values of CMP_FREE_SYNC that programs run under; a sanitized build is slow.
USUAL_MODES = "auto,order" if os.environ.get("CMP_SANITIZE") else "wait,auto,order,none"
MODES = tuple(os.environ.get("CMP_TEST_MODES", USUAL_MODES).split(","))


def gpu_count() -> int:
    """Devices that the real driver finds; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    good = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if good else 0


def sanitizer_runtime() -> str:
    """The sanitizer runtime that must be preloaded first, with a sanitized build; else ''."""
    which = os.environ.get("CMP_SANITIZE", "")
    if not which:
        return ""
    name = "libtsan.so" if which == "thread" else "libasan.so"
    return subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True,
                          check=True).stdout.strip()


class Result:
    """What a program said."""

    def __init__(self, done: subprocess.CompletedProcess, statistics: dict | None,
                 settings: dict[str, str]) -> None:
        words = [f"{name}={value}" for name, value in settings.items()]
        self.again = shlex.join(["env", *words, *done.args])  # what to type to see it once more
        self.code = done.returncode
        self.output = done.stdout
        self.errors = done.stderr
        self.statistics = statistics

    def everything(self) -> str:
        """For the message of a failure."""
        return f"\nagain: {self.again}\nexit code {self.code}\n{self.output}\n{self.errors}"

    def number(self, word: str) -> float:
        """The number behind a word on stderr, as in 'seconds 0.123'."""
        words = self.errors.split()
        return float(words[words.index(word) + 1])

    def waits(self) -> str:
        """How many frees waited, and why."""
        return in_words(wait_counters(self.statistics)) or "no waits"


def wait_counters(statistics: dict) -> dict:
    """The counters of waits, those that were skipped too."""
    return {name: count for name, count in statistics["process"].items()
            if name.startswith(("wait", "skipped")) and count != 0}


def in_words(counters: dict) -> str:
    """Times in milliseconds."""
    return ", ".join(
        f"{name[:-3]} {count / 1e6:.1f} ms" if name.endswith("_ns") else f"{name} {count:,}"
        for name, count in counters.items())


def run(*command: str, preload: bool | pathlib.Path, simulated: bool = False,
        timeout: float = 240, counted: bool = True, given: str | None = None,
        **settings: str) -> Result:
    """Runs a program, `given` to its stdin; with `preload` under the pool (or that library), `counted` with statistics:
    their file costs the first allocation 3 ms (measured, H200)."""
    env = environment(simulated) | settings
    with tempfile.TemporaryDirectory() as place:
        file = os.path.join(place, "statistics.json")
        if preload:
            library = LIBRARY if preload is True else preload
            env["LD_PRELOAD"] = ":".join(filter(None, [sanitizer_runtime(), str(library)]))
            if counted:
                env["CMP_STATS"] = file
        done = subprocess.run(list(command), env=env, input=given, capture_output=True, text=True,
                              timeout=timeout, check=False)
        statistics = None
        if os.path.exists(file):
            with open(file, encoding="utf-8") as text:
                statistics = json.load(text)
    shown = {name: env[name] for name in (*settings, "LD_LIBRARY_PATH", "LD_PRELOAD") if name in env}
    return Result(done, statistics, shown)


def environment(simulated: bool = False) -> dict[str, str]:
    """Of a program: this one's without the pool's settings, and where its CUDA is."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("CMP_")}
    folder = str(BUILD / "sim") if simulated else runtime_folder()
    if folder:
        env["LD_LIBRARY_PATH"] = ":".join(filter(None, [folder, env.get("LD_LIBRARY_PATH")]))
    return env


def runtime_folder() -> str:
    """Where the shared libcudart that the programs were linked to lies."""
    path = os.environ.get("CMP_CUDART", "")
    if path and not path.endswith("NOTFOUND"):
        return str(pathlib.Path(path).resolve().parent)
    for folder in ("/usr/local/cuda/lib64", "/opt/cuda/lib64"):
        if os.path.isdir(folder):
            return folder
    return ""


def skip_all(reason: str) -> None:
    """Ends this file of tests as skipped, which ctest counts."""
    print("skipped:", reason)
    sys.exit(SKIPPED)


FIGURES: list[tuple[str, str, str]] = []  # what, under what, figures


def add_figure(what: str, under: str, figures: str) -> None:
    """A row of the table; also printed at once, for whoever watches."""
    FIGURES.append((what, under, figures))
    print(f"{what} | {under} | {figures}", flush=True)


def print_figures() -> None:
    """The table, at the end of a file of tests."""
    print("\n| program | under | figures |\n|---|---|---|")
    for row in FIGURES:
        print("| " + " | ".join(row) + " |")
    sys.stdout.flush()
