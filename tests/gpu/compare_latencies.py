"""What the slowest calls cost, without and with the pool: of RUNS runs in turn the median of each
figure that latencies.cpp prints, as a table; and of each run with the pool its slowest calls.

  compare_latencies.py [RUNS] [ARGUMENT of latencies ...]
"""

import json
import statistics
import sys

import programs


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    if programs.gpu_count() == 0:
        programs.skip_all("no GPU")
    under = {"real calls": {}, "auto": {"CMP_FREE_SYNC": "auto"}, "none": {"CMP_FREE_SYNC": "none"}}
    found: dict[str, list[dict]] = {name: [] for name in under}
    slowest = []
    for run in range(runs):
        for name, settings in under.items():
            result = programs.run(str(programs.BUILD / "latencies"), "--seed", str(run),
                                  *sys.argv[2:], preload=bool(settings), counted=False, **settings)
            if result.code != 0:
                sys.exit(result.everything())
            found[name].append(json.loads(result.output))
            if settings:
                slowest.append(f"{name}, seed {run}: {'; '.join(result.errors.splitlines()[:3])}")
    print("| call | under | median | 99% | 99.9% | worst |")
    print("|---|---|---|---|---|---|")
    for call in ("malloc", "free", "launch"):
        for name, results in found.items():
            cells = [statistics.median(one[call][figure] for one in results)
                     for figure in ("median", "p99", "p99.9", "worst")]
            print(f"| {call} | {name} | " + " | ".join(f"{us:.2f} us" for us in cells) + " |")
    firsts = {name: statistics.median(one["first_malloc"]["median"] for one in results)
              for name, results in found.items()}
    print("The first cudaMalloc: " + ", ".join(f"{us:.0f} us ({name})"
                                                for name, us in firsts.items()))
    print("\n".join(slowest))
    return 0


if __name__ == "__main__":
    sys.exit(main())
