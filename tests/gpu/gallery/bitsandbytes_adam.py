"""bitsandbytes: its 8-bit Adam trains a small network of PyTorch's, whose cache serves both."""

import bitsandbytes
import torch

import given


def main() -> None:
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Linear(1024, 4096), torch.nn.ReLU(),
                                  torch.nn.Linear(4096, 10)).cuda()
    optimizer = bitsandbytes.optim.Adam8bit(network.parameters(), lr=1e-3)
    inputs = torch.randn(256, 1024, device="cuda")
    labels = torch.randint(0, 10, (256,), device="cuda")
    losses = []
    for _ in range(given.rounds(200)):
        loss = torch.nn.functional.cross_entropy(network(inputs), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    print(losses[0].hex(), losses[-1].hex())


main()
