"""What a pair of cudaMalloc and cudaFree costs without and with the pool, as a table of ratios.

  compare_pairs.py [MILLISECONDS_PER_CASE]

Both runs and the cudaMallocAsync column are made in turn on the same machine; only the ratios mean
something on a shared one.
"""

import json
import sys

import programs


def measure(preload: bool, milliseconds: str) -> dict:
    result = programs.run(str(programs.BUILD / "pairs"), milliseconds, preload=preload)
    if result.code != 0:
        sys.exit(result.errors)
    rows = map(json.loads, result.output.splitlines())
    return {(row["way"], row["threads"], row["bytes"]): row["ns"] for row in rows}


def main() -> int:
    milliseconds = sys.argv[1] if len(sys.argv) > 1 else "200"
    if programs.gpu_count() == 0:
        programs.skip_all("no GPU")
    without = measure(False, milliseconds)
    with_pool = measure(True, milliseconds)
    print("| threads | bytes | cudaMalloc + cudaFree | with the pool | times faster "
          "| cudaMallocAsync + cudaFreeAsync |")
    print("|---|---|---|---|---|---|")
    for (way, threads, size), ns in sorted(without.items(), key=lambda item: item[0][1:]):
        if way != "cudaMalloc":
            continue
        pool = with_pool[way, threads, size]
        asynchronous = without.get(("cudaMallocAsync", threads, size))
        other = f"{asynchronous / 1000:.2f} µs" if asynchronous else ""
        print(f"| {threads} | {size:,} | {ns / 1000:.2f} µs | {pool / 1000:.2f} µs "
              f"| {ns / pool:.1f} | {other} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
