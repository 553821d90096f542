"""NCCL collectives and DistributedDataParallel training, one process a GPU; exact results.

Knows nothing of the pool: without and with the preload the output, of rank 0, must be the same. The
time of the steps goes to stderr.

  torchrun --standalone --nproc_per_node=N torch_ddp.py [STEPS]
"""

import os
import sys

import torch
import torch.distributed as dist
from torch import nn

import training

SIZES = (1, 1000, 70001, 1 << 20, 5000000)


def pattern(rank: int, size: int) -> torch.Tensor:
    """Small whole numbers, whose sums are exact in any order."""
    numbers = torch.arange(size, device="cuda", dtype=torch.float32)
    return (numbers * (rank + 3) + 7 * rank) % 1021


def all_reduce(ranks: int, rank: int, size: int) -> int:
    """How many words of the sum are wrong. Tensors come and go while the sum is under way."""
    mine = pattern(rank, size)
    work = dist.all_reduce(mine, async_op=True)
    expected = sum(pattern(other, size) for other in range(ranks))
    work.wait()
    return int((mine != expected).sum().item())


def all_to_all(ranks: int, rank: int, size: int) -> int:
    """Piece i goes to rank i."""
    pieces = torch.cat([pattern(rank * ranks + other, size) for other in range(ranks)])
    received = torch.empty_like(pieces)
    work = dist.all_to_all_single(received, pieces, async_op=True)
    expected = torch.cat([pattern(other * ranks + rank, size) for other in range(ranks)])
    work.wait()
    return int((received != expected).sum().item())


def collectives(ranks: int, rank: int) -> list[str]:
    lines = []
    for what in (all_reduce, all_to_all):
        for size in SIZES:
            wrong = torch.tensor([what(ranks, rank, size) for _ in range(4)], device="cuda")
            dist.all_reduce(wrong)
            lines.append(f"{what.__name__} of {size}: wrong words {wrong.tolist()}")
    return lines


def train(ranks: int, rank: int, steps: int) -> list[str]:
    # Buckets small enough that several sums are under way while the rest is computed.
    model = nn.parallel.DistributedDataParallel(training.classifier(256), bucket_cap_mb=1)
    torch.manual_seed(100 + rank)
    train_step = training.classifying(model, *training.images(64))
    losses = training.timed("torch_ddp", steps, lambda: train_step().double(), say=rank == 0)
    mine = torch.stack(losses + [sum(p.detach().double().sum() for p in model.parameters())])
    everybodys = [torch.empty_like(mine) for _ in range(ranks)]
    dist.all_gather(everybodys, mine)
    return [" ".join(value.hex() for value in row)
            for row in torch.stack(everybodys).t().tolist()]


def main() -> int:
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    training.make_exact()
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl")
    lines = collectives(ranks, rank) + train(ranks, rank, training.steps_asked())
    dist.barrier()
    dist.destroy_process_group()
    if rank == 0:
        print(f"ranks {ranks}")
        print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
