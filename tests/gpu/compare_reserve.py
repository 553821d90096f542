"""What CMP_RESERVE is worth where sizes do not repeat from one allocation to the next, as a table.

  compare_reserve.py [ROUNDS]

Two workloads: RMM's random allocations of up to 1 GiB (against/workloads.h), every round the same or
every round another; a transformer on batches of random length without PyTorch's own cache
(torch_transformer.py), and with it. Milliseconds: the median of the second half of the rounds, of
the steps after the first third. All runs are made in turn on the same machine.
"""

import importlib.util
import json
import os
import pathlib
import re
import sys

import programs

BOUNDS = ("auto", "1.15x+256M", "4x+16G")


def show(workload: str, under: str, milliseconds: float, result: programs.Result) -> None:
    kept = ""
    if result.statistics:
        process = result.statistics["process"]
        kept = (f"{process['reserved_peak_bytes'] / 2**30:.1f} GiB for a peak of "
                f"{process['live_peak_bytes'] / 2**30:.1f}, {process['real_malloc_calls']:,} and "
                f"{process['real_free_calls']:,} real calls")
    print(f"| {workload} | {under} | {milliseconds:.2f} ms | {kept} |", flush=True)


def checked(result: programs.Result) -> programs.Result:
    if result.code != 0:
        sys.exit(result.everything())
    return result


def random_sizes(rounds: str, new: bool) -> None:
    workload = "random sizes, new each round" if new else "random sizes"
    count = 1000
    request = (f"random count={count} most={1 << 30} rounds={rounds} new={int(new)} "
               "milliseconds=0\n")

    def one(under: str, allocator: str, preload: bool, **settings: str) -> None:
        result = checked(programs.run(str(programs.BUILD / "against"), allocator, given=request,
                                      preload=preload, **settings))
        said = json.loads(result.output.splitlines()[-1])
        if "missing" in said:
            print(f"| {workload} | {under} | {said['missing']} | |", flush=True)
        else:  # its figure is that of a call
            show(workload, under, said["ns"] * 2 * count / 1e6, result)

    one("real calls", "real", False)
    one("cudaMallocAsync", "async-max", False)
    for bound in BOUNDS:
        one(f"pool, {bound}", "real", True, CMP_RESERVE=bound)


def transformer() -> None:
    script = str(pathlib.Path(__file__).parent / "torch_transformer.py")

    def one(under: str, preload: bool, **settings: str) -> None:
        result = checked(programs.run(sys.executable, script, preload=preload, **settings))
        median = float(re.search(r"median ([0-9.]+)", result.output)[1])
        show("transformer, a step", under, median, result)

    one("PyTorch's own cache", False)
    one("real calls", False, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
    for bound in BOUNDS[:2]:
        one(f"pool, {bound}", True, PYTORCH_NO_CUDA_MEMORY_CACHING="1", CMP_RESERVE=bound)


def main() -> int:
    rounds = sys.argv[1] if len(sys.argv) > 1 else "20"
    if programs.gpu_count() == 0 and not os.environ.get("CMPSIM_MEMORY"):
        programs.skip_all("no GPU")
    print("| workload | under | time | kept |")
    print("|---|---|---|---|")
    random_sizes(rounds, new=False)
    random_sizes(rounds, new=True)
    if importlib.util.find_spec("torch"):
        transformer()
    return 0


if __name__ == "__main__":
    sys.exit(main())
