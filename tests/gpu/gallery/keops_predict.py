"""KeOps: predictions of a Gaussian kernel model with 1,000 centres for batches of 200,000 points; the kernel
matrix is never stored. Arrays are NumPy's, so each call allocates on the GPU what it needs there, and frees it."""

import sys

sys.modules["torch"] = None  # or KeOps would import PyTorch, too, which takes longer than all else here

import numpy  # pylint: disable=wrong-import-position
from pykeops.numpy import Genred  # pylint: disable=wrong-import-position

import given  # pylint: disable=wrong-import-position


def main() -> None:
    random = numpy.random.RandomState(1)
    centres = random.rand(1000, 3).astype(numpy.float32)
    weights = random.randn(1000, 1).astype(numpy.float32)
    width = numpy.array([10.0], dtype=numpy.float32)
    predict = Genred("Exp(-G * SqDist(X, Y)) * B",
                     ["G = Pm(1)", "X = Vi(3)", "Y = Vj(3)", "B = Vj(1)"],
                     reduction_op="Sum", axis=1)
    batches = [random.rand(200000, 3).astype(numpy.float32) for _ in range(4)]
    total = 0.0
    for i in range(given.rounds(800)):
        found = predict(width, batches[i % 4], centres, weights,
                        backend="CPU" if given.CPU else "GPU_1D")
        total += float(found.mean())
    print(total)


main()
