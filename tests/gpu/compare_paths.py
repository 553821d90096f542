"""What the paths of paths.cpp cost without and with the pool, as a table of ratios.

  compare_paths.py [RUNS] [ARGUMENT of paths ...]

Of RUNS (3) runs in turn the median of each figure. Only the ratios mean something on a shared machine.
"""

import json
import statistics
import sys

import programs


def measure(preload: bool, *arguments: str) -> dict[str, float]:
    result = programs.run(str(programs.BUILD / "paths"), *arguments, preload=preload, counted=False)
    if result.code != 0:
        sys.exit(result.everything())
    return {row["what"]: row["ns"] for row in map(json.loads, result.output.splitlines())}


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    if programs.gpu_count() == 0:
        programs.skip_all("no GPU")
    found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for _ in range(runs):
        for preload, results in found.items():
            results.append(measure(preload, *sys.argv[2:]))
    print("| path | real calls | with the pool | times |")
    print("|---|---|---|---|")
    for what in found[False][0]:
        real, pool = (statistics.median(one[what] for one in results) for results in found.values())
        print(f"| {what} | {real:,.0f} ns | {pool:,.0f} ns | {real / pool:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
