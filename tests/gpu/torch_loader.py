"""PyTorch with a DataLoader whose forked workers feed pinned batches, beside CuPy if it is there.

CUDA is used before the workers are forked; the same process then trains on what they send.
"""

import importlib.util
import sys

import torch
from torch.utils.data import DataLoader, Dataset


class Numbers(Dataset):
    """Made, not stored."""

    def __len__(self) -> int:
        return 512

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        x = torch.randn(256, generator=generator)
        return x, x.sum()


def main() -> int:
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(256, 128), torch.nn.Tanh(),
                                torch.nn.Linear(128, 1)).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    loader = DataLoader(Numbers(), batch_size=32, num_workers=3, pin_memory=True)
    for _ in range(2):
        for x, target in loader:
            x = x.cuda(non_blocking=True)
            target = target.cuda(non_blocking=True)
            loss = torch.nn.functional.mse_loss(model(x)[:, 0], target)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        print(loss.item().hex())
    if importlib.util.find_spec("cupy"):
        import cupy  # in the same process, with a runtime of its own
        cupy.cuda.set_allocator(None)
        shared = cupy.from_dlpack(torch.arange(10000, device="cuda"))
        print(int((shared * 2).sum()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
