"""Numba kernels on arrays that come and go: cuMemAlloc through the driver, page-locked and mapped
arrays, several streams. Numba puts frees off and makes them together.
"""

import hashlib
import sys
import time

import numpy

if not hasattr(numpy, "row_stack"):
    numpy.row_stack = numpy.vstack  # NumPy 2.5 lacks what Numba 0.6x looks for

from numba import cuda  # pylint: disable=wrong-import-position


@cuda.jit
def smooth(source, target):
    i = cuda.grid(1)
    if 0 < i < source.size - 1:
        target[i] = (source[i - 1] + 2 * source[i] + source[i + 1]) / 4


@cuda.jit
def add(x, y, total):
    i = cuda.grid(1)
    if i < x.size:
        total[i] = x[i] + y[i]


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    random = numpy.random.RandomState(5)
    streams = [cuda.stream() for _ in range(3)]
    digest = hashlib.sha256()
    pinned = cuda.pinned_array(1 << 16, dtype=numpy.float64)
    begin = 0.0
    for i in range(rounds):
        if i == 5:
            begin = time.perf_counter()
        size = 1 << 10 << (i % 7)
        blocks = (size + 255) // 256
        stream = streams[i % 3]
        pinned[:size] = random.rand(size)
        x = cuda.to_device(pinned[:size], stream=stream)
        y = cuda.device_array(size, stream=stream)
        y[:] = 0
        smooth[blocks, 256, stream](x, y)
        total = cuda.device_array_like(x)
        add[blocks, 256, stream](x, y, total)
        del x, y
        digest.update(total.copy_to_host(stream=stream).tobytes())
        stream.synchronize()
    print(digest.hexdigest())
    print(f"numba_run: seconds {time.perf_counter() - begin:.6f}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
