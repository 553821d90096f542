"""What order costs programs with several streams, what `none` gains them, and whether shaking finds
anything: each without the pool, under auto and none, recorded, and shaken with some seeds.

  CMP_BUILD=FOLDER shake_programs.py [--simulated] [--rounds 2] [--seeds 3] [--limit SECONDS]
                                     [--loops] [PROGRAM ...]

Two minutes on an H200 with PyTorch and CuPy; build the target nvcc_programs first. --loops, and so
--simulated: those alone which need neither. Exit code 1:
a program failed, or its results changed.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import programs

UNCACHED = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


def listed(simulated: bool) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Name: command, settings."""
    loop = [str(programs.BUILD / "loop"), "--streams", "4"]
    loop += ["--iterations", "100", "--repetitions", "1"] if simulated else ["--repetitions", "3"]
    python = [sys.executable]
    return {
        "loop of 1 MiB, 20 us kernels": (loop, {}),
        # As RMM's multi_stream_allocations: small blocks, kernels that take longer than calls.
        "loop of 256 B, 100 us kernels": ([*loop, "--bytes", "256", "--kernel-us", "100"], {}),
        "thrust, 4 threads": ([str(programs.BUILD / "thrust_threads")], {}),
        "CuPy, 3 threads": ([*python, str(programs.HERE / "cupy_streams.py")], {}),
        "PyTorch, 3 streams": ([*python, str(programs.HERE / "torch_streams.py")], UNCACHED),
    }


def figure(result: programs.Result) -> float:
    """What the program measured itself: seconds, or an iteration's us."""
    if result.code != 0:
        raise RuntimeError(result.everything())
    if result.output.startswith("{"):
        return float(json.loads(result.output)["malloc_us"])
    return result.number("seconds")


def measure(command: list[str], usual: dict[str, str], options: argparse.Namespace,
            folder: pathlib.Path) -> tuple[str, bool]:
    """The row of a program; are its results the same?"""
    sites = str(folder / "sites")
    said: set[str] = set()

    def run(mode: str = "", **settings: str) -> programs.Result:
        if mode:
            settings["CMP_FREE_SYNC"] = mode
        if options.simulated:
            settings["CMPSIM_HOLD_NS"] = "5000000"
        done = programs.run(*command, preload=bool(mode), simulated=options.simulated, timeout=60,
                            counted=bool(settings.get("CMP_SHAKE")), **usual, **settings)
        figure(done)
        if not done.output.startswith("{"):  # figures differ
            said.add(done.output)
        return done

    times: dict[str, list[float]] = {"": [], "auto": [], "none": []}
    for _ in range(options.rounds):
        for mode, found in times.items():
            found.append(figure(run(mode)))
    run("none", CMP_SHAKE="record", CMP_SHAKE_REPORT=sites)
    shaken = [run("none", CMP_SHAKE=str(seed + 1), CMP_SHAKE_SITES=sites)
              for seed in range(options.seeds)]
    counts = [done.statistics["shake"] for done in shaken]
    cells = [f"{statistics.median(found):.4g}" for found in times.values()]
    cells += [f"{statistics.median(map(figure, shaken)):.4g}"]
    cells += [", ".join(f"{count[what]:,}" for count in counts) for what in ("sites", "holds", "effective")]
    cells += ["not compared" if not said else "the same" if len(said) == 1 else "CHANGED"]
    return " | ".join(cells), len(said) <= 1


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--loops", action="store_true")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=1e9)
    parser.add_argument("programs", nargs="*")
    options = parser.parse_args()
    end = time.monotonic() + options.limit
    good = True
    print("program | without | auto | none | none, shaken | sites | holds | effective | results")
    for name, (command, settings) in listed(options.simulated).items():
        if options.programs and name not in options.programs:
            continue
        if (options.loops or options.simulated) and not name.startswith("loop"):
            continue
        if time.monotonic() > end:
            print("the time is over")
            break
        with tempfile.TemporaryDirectory(prefix="cmp-shake-") as folder:
            try:
                row, same = measure(command, settings, options, pathlib.Path(folder))
            except (RuntimeError, OSError, ValueError, KeyError, TypeError,
                    subprocess.TimeoutExpired) as error:
                row, same = f"failed: {error}", False
        good &= same
        print(f"{name} | {row}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
