"""What the programs that train with PyTorch share: exact results, a network, timed steps."""

import sys
import time
from typing import Callable

import torch
from torch import nn

WARM_UP = 5  # steps that are not timed


def make_exact() -> None:
    """The same results in every run."""
    torch.manual_seed(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def classifier(hidden: int, normalises: bool = True) -> nn.Module:
    """Of images of 32 by 32 pixels, into ten classes."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), *([nn.BatchNorm2d(32)] if normalises else []), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 16 * 16, hidden), nn.ReLU(), nn.Linear(hidden, 10),
    ).cuda()


def images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ones, and their classes."""
    return (torch.randn(count, 3, 32, 32, device="cuda"),
            torch.randint(0, 10, (count,), device="cuda"))


def step_of(loss_of: Callable[[], torch.Tensor],
            optimizer: torch.optim.Optimizer) -> Callable[[], torch.Tensor]:
    """One step of training, which returns its loss."""
    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()
        optimizer.step()
        return loss.detach()
    return step


def classifying(model: nn.Module, inputs: torch.Tensor,
                labels: torch.Tensor) -> Callable[[], torch.Tensor]:
    """One step of training a classifier, which returns its loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return step_of(lambda: nn.functional.cross_entropy(model(inputs), labels), optimizer)


def timed(name: str, steps: int, step: Callable[[], object], say: bool = True) -> list:
    """What the steps return, those that warm up included; their time goes to stderr."""
    results = [step() for _ in range(WARM_UP)]
    torch.cuda.synchronize()
    begin = time.perf_counter()
    results += [step() for _ in range(steps)]
    torch.cuda.synchronize()
    if say:
        print(f"{name}: seconds {time.perf_counter() - begin:.6f} steps {steps}", file=sys.stderr)
    return results


def steps_asked() -> int:
    """The first argument."""
    return int(sys.argv[1]) if len(sys.argv) > 1 else 30
