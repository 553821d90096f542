"""CuPy with its own pool off on arrays larger than CMP_MAX_BLOCK's default: of three temporaries a
round, each is a cudaMalloc of 1.5 GiB.

  cupy_large.py [ROUNDS]
"""

import sys
import time

import cupy

BYTES = 3 << 29


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    cupy.cuda.set_allocator(None)
    x = cupy.arange(BYTES // 4, dtype=cupy.uint32)
    total = 0
    begin = time.perf_counter()
    for i in range(rounds):
        y = (x * cupy.uint32(2 * i + 1)) ^ (x >> cupy.uint32(i % 7))
        total += int(y[:: 1 << 16].sum())
    cupy.cuda.Device().synchronize()
    print(total)
    print(f"cupy_large: seconds {time.perf_counter() - begin:.6f}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
