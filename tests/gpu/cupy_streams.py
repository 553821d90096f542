"""CuPy in several threads, each with two streams that hand arrays to each other by events alone, and
its own pool off: every temporary is a cudaMalloc and a cudaFree. Prints every result exactly.
"""

import sys
import threading
import time

import cupy

THREADS = 3
STEPS = 80


def work(thread: int, results: dict[int, list[str]]) -> None:
    makes, reduces = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    totals = []
    for step in range(STEPS):
        with makes:
            x = cupy.arange(1000 + (step * 7919 + thread * 331) % (1 << 18), dtype=cupy.float64)
            y = cupy.sin(x * (step + 1)) + thread
            made = makes.record()
        with reduces:
            reduces.wait_event(made)
            totals.append((cupy.sort(y)[:100] * 2).sum() + y.max())
            reduced = reduces.record()
        makes.wait_event(reduced)
        del x, y  # while the other stream may work on them
    reduces.synchronize()
    with reduces:
        results[thread] = [float(total).hex() for total in totals]


def main() -> int:
    cupy.cuda.set_allocator(None)
    begin = time.perf_counter()
    results: dict[int, list[str]] = {}
    threads = [threading.Thread(target=work, args=(i, results)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(THREADS):
        print(*results[i], sep="\n")
    cupy.cuda.Device().synchronize()
    print(f"cupy_streams: seconds {time.perf_counter() - begin:.6f}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
