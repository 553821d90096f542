"""Taichi: its example of a material point method, without the window."""

import numpy

import given


def main() -> None:
    from taichi.examples.simulation import mpm99  # chooses the GPU, where there is one

    mpm99.initialize()
    for _ in range(given.rounds(10000)):
        mpm99.substep()
    positions = mpm99.x.to_numpy()
    print(positions.shape, bool(numpy.isfinite(positions).all()), round(float(positions.mean()), 1))


main()
