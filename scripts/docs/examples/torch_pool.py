"""PyTorch with the pool as its allocator: no preload, no variable, no copy of PyTorch's cache beside it.

Trains a small network, on a side stream too, and says what it lost.
"""

import cmp_preload
import torch

# Before anything is on the GPU: later PyTorch refuses to change its allocator.
allocator = torch.cuda.memory.CUDAPluggableAllocator(
    cmp_preload.pool_library(), "cmp_stream_alloc", "cmp_stream_free")
torch.cuda.memory.change_current_allocator(allocator)


def main() -> None:
    torch.manual_seed(1)
    model = torch.nn.Sequential(
        torch.nn.Linear(256, 1024), torch.nn.GELU(), torch.nn.Linear(1024, 10)).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs = torch.randn(512, 256, device="cuda")
    labels = torch.randint(0, 10, (512,), device="cuda")
    losses = []
    for _ in range(50):
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0], losses

    # Memory that a side stream still reads when its last name goes is not handed out again before
    # that is done, without record_stream.
    side = torch.cuda.Stream()
    sums = []
    for value in range(100):
        numbers = torch.full((1 << 20,), value, dtype=torch.float64, device="cuda")
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            sums.append(numbers.sum())
        del numbers
    torch.cuda.synchronize()
    assert [one.item() for one in sums] == [value * float(1 << 20) for value in range(100)]
    print(f"loss {losses[0]:.3f} to {losses[-1]:.3f}")


if __name__ == "__main__":
    main()
