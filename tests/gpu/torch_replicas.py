"""Trains a network on all GPUs from one process (DataParallel), and passes tensors between them.

A thread of each GPU, NCCL broadcasts and sums within the process, copies from GPU to GPU. Knows
nothing of the pool: without and with the preload the output must be the same. The time of the steps
goes to stderr. Run it with PYTORCH_NO_CUDA_MEMORY_CACHING=1.
"""

import sys

import torch
from torch import nn

import training


def main() -> int:
    devices = torch.cuda.device_count()
    if devices < 2:
        print("torch_replicas: fewer than two devices", file=sys.stderr)
        return 77
    training.make_exact()
    model = nn.DataParallel(training.classifier(128, normalises=False))
    train = training.classifying(model, *training.images(64 * devices))
    for loss in training.timed("torch_replicas", training.steps_asked(), lambda: train().item()):
        print(loss.hex())
    # From GPU to GPU and back; every tensor is freed as soon as the next one exists.
    for size in (1, 1000, 1 << 20, 5000000):
        numbers = torch.arange(size, device="cuda:0", dtype=torch.float32)
        passed = numbers
        for turn in range(4 * devices):
            passed = passed.to(f"cuda:{(turn + 1) % devices}") + 1
        print(f"passed on {size}: {int((passed - 4 * devices != numbers).sum().item())} wrong")
    return 0


if __name__ == "__main__":
    sys.exit(main())
