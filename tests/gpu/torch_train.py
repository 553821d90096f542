"""Trains a small network with PyTorch and prints every loss exactly.

Knows nothing of the pool: without and with the preload the output must be the same. The time of
the steps goes to stderr. Run it with PYTORCH_NO_CUDA_MEMORY_CACHING=1, so that every tensor is a
cudaMalloc and a cudaFree.
"""

import sys
import time

import torch
from torch import nn


def main() -> int:
    if not torch.cuda.is_available():
        print("torch_train: no CUDA device", file=sys.stderr)
        return 77
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    torch.manual_seed(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 8 * 8, 256), nn.ReLU(), nn.Linear(256, 10),
    ).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    inputs = torch.randn(128, 3, 32, 32, device="cuda")
    labels = torch.randint(0, 10, (128,), device="cuda")

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    losses = [step() for _ in range(5)]
    torch.cuda.synchronize()
    begin = time.perf_counter()
    losses += [step() for _ in range(steps)]
    torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    for loss in losses:
        print(loss.hex())
    print(sum(p.double().sum().item() for p in model.parameters()).hex())
    print(f"torch_train: seconds {seconds:.6f} steps {steps}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
