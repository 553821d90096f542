"""What submissions cost the host without and with the preload, as a table of ratios.

  compare_launches.py [MILLISECONDS_PER_CASE [RUNS]]

The runs without and with take turns; each figure is the median of its runs.
"""

import json
import statistics
import sys

import programs


def measure(milliseconds: str, preload: bool, simulated: bool = False, **settings: str) -> dict:
    """Nanoseconds by what is submitted and number of threads."""
    result = programs.run(str(programs.BUILD / "launches"), milliseconds, preload=preload,
                          simulated=simulated, **settings)
    if result.code != 0:
        sys.exit(result.errors)
    rows = map(json.loads, result.output.splitlines())
    return {(row["what"], row["threads"]): row["ns"] for row in rows}


def compare(milliseconds: str, runs: int, **settings: str) -> dict:
    """(without, with, ratio) by case: medians of runs that take turns."""
    found = {False: [], True: []}
    for _ in range(runs):
        for preload in (False, True):
            found[preload].append(measure(milliseconds, preload, **settings))
    table = {}
    for case in found[False][0]:
        without, within = (statistics.median(run[case] for run in found[preload])
                           for preload in (False, True))
        table[case] = without, within, within / without
    return table


def main() -> int:
    milliseconds = sys.argv[1] if len(sys.argv) > 1 else "200"
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    if programs.gpu_count() == 0:
        programs.skip_all("no GPU")
    print("| submission | threads | without | with the preload | ratio |")
    print("|---|---|---|---|---|")
    for (what, threads), (without, within, ratio) in compare(milliseconds, runs).items():
        print(f"| {what} | {threads} | {without:,.0f} ns | {within:,.0f} ns | {ratio:.3f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
