"""CuPy without its pool: every array is a cudaMalloc and a cudaFree, which a preloaded pool serves."""

import cupy

cupy.cuda.set_allocator(None)  # first of all


def main() -> None:
    x = cupy.arange(1 << 20, dtype=cupy.float64)
    total = 0.0
    for i in range(300):
        y = cupy.sin(x * i) + x
        total += float(y.sum())
    print(total.hex())


if __name__ == "__main__":
    main()
