"""Dr.Jit: a Monte Carlo integral, in many kernels that it compiles once, and arrays that come and go."""

import drjit
from drjit.auto import PCG32, Float

import given


def main() -> None:
    total = 0.0
    for seed in range(given.rounds(1500)):
        random = PCG32(size=1 << 20, initstate=seed)
        x, y = random.next_float32(), random.next_float32()
        height = drjit.exp(-(x * x + y * y))
        drjit.eval(x, y, height)
        inside = drjit.select(x * x + y * y < 1, height, Float(0))
        total += drjit.sum(inside, axis=None)[0]
    print(drjit.backend_v(Float), total)


main()
