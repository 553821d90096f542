"""Training with fully sharded parameters (FSDP2), one process a GPU; exact results.

Every layer gathers its parameters before its pass and frees them after it, on streams of its own.
Knows nothing of the pool: without and with the preload the output, of rank 0, must be the same. The
time of the steps goes to stderr.

  torchrun --standalone --nproc_per_node=N torch_fsdp.py [STEPS]
"""

import os
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

import training

WIDTH = 1024


def model_of(layers: int) -> nn.Module:
    blocks = [nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.ReLU(), nn.Linear(4 * WIDTH, WIDTH))
              for _ in range(layers)]
    model = nn.Sequential(*blocks).cuda()
    for block in model:
        fully_shard(block)
    return fully_shard(model)


def train(rank: int, steps: int) -> list[str]:
    model = model_of(6)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.manual_seed(100 + rank)
    inputs = torch.randn(64, WIDTH, device="cuda")
    step = training.step_of(lambda: (model(inputs) - inputs).square().mean(), optimizer)
    losses = training.timed("torch_fsdp", steps, step, say=rank == 0)
    sums = [p.to_local().detach().double().sum() for p in model.parameters()]
    return [float(value).hex() for value in losses + sums]


def main() -> int:
    rank = int(os.environ["RANK"])
    training.make_exact()
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl")
    lines = train(rank, training.steps_asked())
    everybodys: list = [None] * dist.get_world_size()
    dist.all_gather_object(everybodys, lines)
    dist.barrier()
    dist.destroy_process_group()
    if rank == 0:
        print("\n".join(" ".join(row) for row in zip(*everybodys)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
