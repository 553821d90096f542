"""CuPy with the pool as its allocator, in place of its own and without a preload."""

import ctypes

import cmp_preload
import cupy

pool = ctypes.CDLL(cmp_preload.pool_library())
pool.cmp_stream_alloc.argtypes = (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p)
pool.cmp_stream_alloc.restype = ctypes.c_void_p
pool.cmp_stream_free.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p)
pool.cmp_stream_free.restype = None


def allocate(size: int, device: int) -> int:
    pointer = pool.cmp_stream_alloc(size, device, None)
    if pointer is None:
        raise MemoryError(f"no device memory for {size} bytes")
    return pointer


def free(pointer: int, device: int) -> None:
    pool.cmp_stream_free(pointer, 0, device, None)


cupy.cuda.set_allocator(cupy.cuda.PythonFunctionAllocator(allocate, free).malloc)


def main() -> None:
    x = cupy.arange(1 << 20, dtype=cupy.float64)
    assert float(x.sum()) == (1 << 19) * ((1 << 20) - 1.0)
    for i in range(300):
        y = cupy.sqrt(x * i) + x
    print(float(y[4]))


if __name__ == "__main__":
    main()
