"""PyTorch training fed by a DataLoader, with and without page-locked batches.

Knows nothing of the pool: without and with the preload the losses must be the same, bit for bit.
Run it with PYTORCH_NO_CUDA_MEMORY_CACHING=1, so that every tensor is a cudaMalloc and a cudaFree.

  torch_loader_pinned.py KIND...    pinned    page-locked batches, copied with non_blocking=True
                                    pageable  the same without page-locked memory
                                    conv      like pinned, a network whose convolutions are cuDNN's

Each kind is trained three times anew; prints `KIND DIGEST LOSS` for each on stdout, and
`KIND_seconds` of the median one on stderr. The losses stay on the device until a training ends, as
in programs that do not log every step.
"""

import hashlib
import statistics
import sys
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

BATCH = 128
BATCHES = 60
TRAININGS = 3


class Batches(Dataset):
    """Whole batches, cut from numbers that every run makes alike."""

    def __init__(self, *shape: int) -> None:
        generator = torch.Generator().manual_seed(7)
        self.inputs = torch.randn(BATCH * 8, *shape, generator=generator)
        self.labels = torch.randint(0, 10, (BATCH * 8,), generator=generator)

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        first = index * 37 % (BATCH * 7)
        return (self.inputs[first:first + BATCH].clone(),
                self.labels[first:first + BATCH].clone())


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(1024, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(),
                         nn.Linear(2048, 10))


def convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
                         nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
                         nn.Linear(64 * 16 * 16, 10))


def train(kind: str) -> tuple[str, float]:
    """Trains a new model; returns what came out, and how long it took."""
    torch.manual_seed(1)
    data = Batches(3, 32, 32) if kind == "conv" else Batches(1024)
    model = (convolutions() if kind == "conv" else dense()).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    loader = DataLoader(data, batch_size=None, num_workers=2, pin_memory=kind != "pageable")
    losses = []
    begin = 0.0
    for step, (inputs, labels) in enumerate(loader):
        if step == 1:  # the workers have started
            torch.cuda.synchronize()
            begin = time.perf_counter()
        inputs = inputs.cuda(non_blocking=True)
        labels = labels.cuda(non_blocking=True)
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    exact = [loss.hex() for loss in torch.stack(losses).tolist()]
    return f"{kind} {hashlib.sha256(' '.join(exact).encode()).hexdigest()} {exact[-1]}", seconds


def main() -> int:
    if not torch.cuda.is_available():
        print("torch_loader_pinned: no CUDA device", file=sys.stderr)
        return 77
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    for kind in sys.argv[1:]:
        train(kind)  # warms up
        trained = [train(kind) for _ in range(TRAININGS)]
        for out, _ in trained:
            print(out, flush=True)
        seconds = statistics.median(seconds for _, seconds in trained)
        print(f"{kind}_seconds {seconds:.6f}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
