"""Trains a network on all GPUs from one process (DataParallel), and passes tensors between them.

A thread of each GPU, NCCL broadcasts and sums within the process, copies from GPU to GPU. Knows
nothing of the pool: without and with the preload the output must be the same. The time of the steps
goes to stderr. Run it with PYTORCH_NO_CUDA_MEMORY_CACHING=1.
"""

import sys
import time

import torch
from torch import nn


def main() -> int:
    devices = torch.cuda.device_count()
    if devices < 2:
        print("torch_replicas: fewer than two devices", file=sys.stderr)
        return 77
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    torch.manual_seed(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(64 * 16 * 16, 128), nn.ReLU(), nn.Linear(128, 10),
    ).cuda()
    model = nn.DataParallel(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    inputs = torch.randn(64 * devices, 3, 32, 32, device="cuda")
    labels = torch.randint(0, 10, (64 * devices,), device="cuda")
    losses = []
    begin = 0.0
    for step in range(5 + steps):
        if step == 5:
            torch.cuda.synchronize()
            begin = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    seconds = time.perf_counter() - begin
    for loss in losses:
        print(loss.hex())
    # From GPU to GPU and back; every tensor is freed as soon as the next one exists.
    for size in (1, 1000, 1 << 20, 5000000):
        numbers = torch.arange(size, device="cuda:0", dtype=torch.float32)
        passed = numbers
        for turn in range(4 * devices):
            passed = passed.to(f"cuda:{(turn + 1) % devices}") + 1
        print(f"passed on {size}: {int((passed - 4 * devices != numbers).sum().item())} wrong")
    print(f"torch_replicas: seconds {seconds:.6f} steps {steps}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
