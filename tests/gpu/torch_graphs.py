"""PyTorch CUDA graphs under PyTorch's own cache: capture, replay, and the results beside eager ones.

Knows nothing of the pool: without and with the preload the output must be the same. Between the
captures the cache is emptied, so that the next one allocates again, inside the capture too.
"""

import sys

import torch
from torch import nn


def make_model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 512), nn.GELU(),
                         nn.Linear(512, 16)).cuda()


def warm_up(model: nn.Module, inputs: torch.Tensor) -> None:
    """As PyTorch asks for it before a capture: on a side stream."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            model(inputs).square().mean().backward()
    torch.cuda.current_stream().wait_stream(side)


def main() -> int:
    if not torch.cuda.is_available():
        print("torch_graphs: no CUDA device", file=sys.stderr)
        return 77
    model = make_model()
    generator = torch.Generator().manual_seed(2)
    for mode in ("global", "thread_local", "relaxed"):
        for batch in (64, 100, 4096):
            inputs = torch.zeros(batch, 256, device="cuda")
            warm_up(model, inputs)
            model.zero_grad(set_to_none=True)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode=mode):
                output = model(inputs)
                loss = output.square().mean()
                loss.backward()
            gradient = model[0].weight.grad
            equal = True
            for _ in range(5):
                fresh = torch.randn(batch, 256, generator=generator)
                inputs.copy_(fresh)
                graph.replay()
                seen = output.clone()
                # Other work beside the graph's memory, allocated and freed meanwhile.
                with torch.no_grad():
                    eager = model(fresh.cuda())
                equal = equal and torch.allclose(seen, eager, rtol=1e-3, atol=1e-3)
            torch.cuda.synchronize()
            print(mode, batch, equal, loss.item().hex(), gradient.double().sum().item().hex())
            del graph, output, loss, gradient, inputs, seen, eager
            model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
