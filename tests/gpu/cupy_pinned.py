"""CuPy through page-locked buffers: each round makes one, fills it, copies it to the device and back.

  cupy_pinned.py [--pool] [--rounds N]        200 rounds, unless N says otherwise

Without CuPy's own pool of page-locked memory each buffer is a cudaHostAlloc and a cudaFreeHost; with
--pool it is there, as by default. Prints a digest of what came back, and the time on stderr.
"""

import argparse
import hashlib
import sys
import time

import cupy
import numpy

def buffer(count: int) -> numpy.ndarray:
    memory = cupy.cuda.alloc_pinned_memory(4 * count)
    return numpy.frombuffer(memory, numpy.float32, count)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pool", action="store_true")
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    if not options.pool:
        cupy.cuda.set_pinned_memory_allocator(None)
    stream = cupy.cuda.Stream(non_blocking=True)
    digest = hashlib.sha256()
    cupy.arange(10).sum().item()
    begin = time.perf_counter()
    for i in range(options.rounds):
        count = 1 << (14 + i % 7)  # 64 KiB to 4 MiB
        source, result = buffer(count), buffer(count)
        source[:] = i
        with stream:
            array = cupy.empty(count, numpy.float32)
            array.set(source, stream)
            array *= 2
            array.get(stream, out=result)
        stream.synchronize()
        digest.update(result[:1000].tobytes())
    seconds = time.perf_counter() - begin
    print(digest.hexdigest())
    print(f"cupy_pinned: seconds {seconds:.6f}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
