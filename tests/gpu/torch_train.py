"""Trains a small network with PyTorch and prints every loss exactly.

Knows nothing of the pool: without and with the preload the output must be the same. The time of
the steps goes to stderr. Run it with PYTORCH_NO_CUDA_MEMORY_CACHING=1, so that every tensor is a
cudaMalloc and a cudaFree.
"""

import sys

import torch
from torch import nn

import training


def main() -> int:
    if not torch.cuda.is_available():
        print("torch_train: no CUDA device", file=sys.stderr)
        return 77
    training.make_exact()
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 8 * 8, 256), nn.ReLU(), nn.Linear(256, 10),
    ).cuda()
    train = training.classifying(model, *training.images(128))
    for loss in training.timed("torch_train", training.steps_asked(), lambda: train().item()):
        print(loss.hex())
    print(sum(p.double().sum().item() for p in model.parameters()).hex())
    return 0


if __name__ == "__main__":
    sys.exit(main())
