"""cmp-preload on real programs: trials, tuning, and what statistics and traces cost. Prints every
table; one that fails stops nothing. Ten minutes on an H200 with PyTorch and CuPy,
of which it takes five (LIMIT_S).

  CMP_BUILD=FOLDER trials.py [--simulated] [--trials]

Build first, the target nvcc_programs too. --simulated: on the simulated CUDA, with small sizes.
--trials: those alone, of nine programs, five minutes. Two gain nothing (one makes no allocation in
its loop, one has a pool of its own), and one takes as long as chance has it.
"""

import importlib.util
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import programs

COMMAND = [sys.executable, str(programs.BUILD / "cmp-preload")]
SIMULATED = "--simulated" in sys.argv[1:]
LIMIT_S = 300  # for all of it
BEGIN = time.monotonic()


class Ended(Exception):
    """A command failed, or had no time."""


def environment() -> dict[str, str]:
    env = programs.environment(SIMULATED)
    if SIMULATED:
        env |= {"CMPSIM_COSTS": "h200", "CMPSIM_MEMORY": "8G"}
    return env


def run(command: list[str], limit_s: float, stdout=None, **settings: str) -> str:
    """Runs a command to its end, or to that of its time; what it wrote on stderr."""
    limit_s = min(limit_s, LIMIT_S - (time.monotonic() - BEGIN))
    if limit_s <= 0:
        raise Ended("no time is left")
    process = subprocess.Popen(command, env=environment() | settings, stdout=stdout,
                               stderr=subprocess.PIPE, text=True)
    try:
        errors = process.communicate(timeout=limit_s)[1]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # cmp-preload then ends what it started
        process.communicate()
        raise Ended(f"took longer than {limit_s:.0f} s") from None
    if process.returncode != 0:
        raise Ended(f"exit code {process.returncode}: {errors.strip()[-300:]}")
    return errors


def show(title: str, do, *arguments) -> bool:
    """One part of the output, with the time that it took."""
    print(f"\n== {title}", flush=True)
    begin = time.monotonic()
    try:
        do(*arguments)
    except (Ended, OSError, ValueError) as error:
        print(f"FAILED: {error}", flush=True)
        return False
    print(f"({time.monotonic() - begin:.0f} s)", flush=True)
    return True


def cmp_preload(*arguments: str) -> None:
    print("$ cmp-preload", shlex.join(arguments).replace(str(programs.BUILD) + "/", ""), flush=True)
    run([*COMMAND, *arguments], 70)


def observation_costs(command: list[str], times: int) -> None:
    """The program's own seconds, with each in turn: medians, and their ratio to the pool alone."""
    with tempfile.TemporaryDirectory() as folder:
        variants = {
            "the pool": {},
            "CMP_STATS=FILE": {"CMP_STATS": os.path.join(folder, "statistics.json")},
            "CMP_TRACE=FILE": {"CMP_TRACE": os.path.join(folder, "trace")},
        }
        seconds = {name: [] for name in variants}
        for _ in range(times):
            for name, settings in variants.items():
                words = run(command, 30, subprocess.DEVNULL, LD_PRELOAD=str(programs.LIBRARY),
                            **settings).split()
                seconds[name].append(float(words[words.index("seconds") + 1]))
    usual = statistics.median(seconds["the pool"])
    print(f"{shlex.join(command[1:])} of {os.path.basename(command[0])}, median of {times}:")
    for name, found in seconds.items():
        median = statistics.median(found)
        print(f"{name:<16} {median:.4f} s  {median / usual:.3f}  "
              f"({min(found):.4f} to {max(found):.4f})", flush=True)


def recorded(command: list[str]) -> None:
    """A trace of the program, its report, and its replays in each way."""
    with tempfile.TemporaryDirectory() as folder:
        trace = os.path.join(folder, "trace")
        run(command, 30, subprocess.DEVNULL, LD_PRELOAD=str(programs.LIBRARY), CMP_TRACE=trace)
        cmp_preload("report", trace)
        page = os.path.join(folder, "page.html")
        cmp_preload("report", "--html", page, trace)
        print(f"(a page of {os.path.getsize(page) >> 10} KiB)")
        cmp_preload("replay", "--backend", "all", trace)


def built(name: str) -> str:
    return str(programs.BUILD / name)


def parts():
    """Title, function, arguments."""
    python = [sys.executable]
    quick = ["-n", "1", "--modes", "auto", "--no-fill"]
    if SIMULATED:
        churn = [built("churn"), "2", "60"]
        loop = ["--iterations", "20", "--repetitions", "1"]
        launches, runs, most_sleep = "1", 1, 1
    else:
        churn = [built("churn"), "8", "3000"]
        loop = ["--iterations", "500", "--repetitions", "3"]
        launches, runs, most_sleep = "30", 5, 15

    # It prints how much memory is free. Of blocks that share a chunk of the driver's, how many chunks
    # are wholly idle is chance.
    loop += ["--bytes", str(2 << 20)]

    def trial(title, options, command):
        return title, cmp_preload, ["trial", *options, "--", *command]

    few = ["-n", "1" if SIMULATED else "6"]  # with fewer a trial says nothing of times
    auto = [*few, "--modes", "auto"]
    nvcc = not SIMULATED  # its programs bring kernels that the simulated CUDA does not know
    if nvcc and os.path.exists(built("thrust_static")):
        yield trial("thrust sorts (and with them CUB's), static runtime", few,
                    [built("thrust_static")])
    if nvcc and os.path.exists(built("thrust_shared")):
        yield trial("the same, shared runtime", auto, [built("thrust_shared")])
    yield trial("threads and streams: mixed sizes, kernels that check their data",
                [*few, "--modes", "auto,order"], churn)
    yield trial("one stream: 2 MiB, kernel, free", auto, [built("loop"), *loop])
    yield trial("4 streams: the same", [*few, "--modes", "auto,order"],
                [built("loop"), "--streams", "4", *loop])
    yield trial("launches alone", auto, [built("launches"), launches])
    yield trial("a program that takes as long as chance has it", auto,
                ["sh", "-c", f"sleep $(shuf -i 1-{most_sleep} -n 1)e-1; exec "
                 + shlex.join([built("loop"), *loop])])
    cupy = [*python, str(programs.HERE / "cupy_run.py")]
    if not SIMULATED and importlib.util.find_spec("cupy"):
        yield trial("CuPy, its pool off", auto, cupy)
        yield trial("CuPy, its own pool", auto, [*cupy, "--pool"])
    if "--trials" in sys.argv[1:]:
        return
    if not SIMULATED and importlib.util.find_spec("torch"):
        train = [*python, str(programs.HERE / "torch_train.py"), "50"]
        yield trial("PyTorch, uncached", quick,
                    ["env", "PYTORCH_NO_CUDA_MEMORY_CACHING=1", *train])
        yield trial("PyTorch, its own cache", quick, train)
    yield "tuning churn", cmp_preload, ["tune", *few, "--", *churn]
    if not SIMULATED and importlib.util.find_spec("cupy"):
        yield "tuning CuPy", cmp_preload, ["tune", "-n", "2", "--", *cupy]
        large = [*python, str(programs.HERE / "cupy_large.py")]
        yield "tuning CuPy with arrays of 1.5 GiB", cmp_preload, ["tune", "-n", "3", "--", *large]
    yield "what the process recorded, and its replays", recorded, [churn]
    yield "what statistics and traces cost", observation_costs, [churn, runs]


def main() -> int:
    if not SIMULATED and programs.gpu_count() == 0:
        programs.skip_all("no GPU")
    good = [show(title, do, *arguments) for title, do, arguments in parts()]
    print(f"\n{sum(good)} of {len(good)} went well, {time.monotonic() - BEGIN:.0f} s")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
