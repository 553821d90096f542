"""PyTorch on side streams: a pipeline whose stages are ordered by events alone.

Run it with PYTORCH_NO_CUDA_MEMORY_CACHING=1, so that every tensor is a cudaMalloc and a cudaFree:
tensors are dropped while other streams still work on them (record_stream says so to PyTorch's
cache, and to nobody where there is none). Prints every result exactly.
"""

import sys
import time

import torch


def stage(stream: torch.cuda.Stream, after: torch.cuda.Event | None, inputs: list[torch.Tensor],
          work) -> tuple[torch.Tensor, torch.cuda.Event]:
    """Runs work(*inputs) on a stream once the event has passed."""
    with torch.cuda.stream(stream):
        if after is not None:
            stream.wait_event(after)
        output = work(*inputs)
        for tensor in inputs:
            tensor.record_stream(stream)
        done = torch.cuda.Event()
        done.record(stream)
    return output, done


def main() -> int:
    if not torch.cuda.is_available():
        print("torch_streams: no CUDA device", file=sys.stderr)
        return 77
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    streams = [torch.cuda.Stream() for _ in range(3)]
    base = torch.linspace(0, 1, 1 << 20, dtype=torch.float64, device="cuda")
    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream())
    begin = time.perf_counter()
    totals = []
    for step in range(steps):
        size = 1000 + (step * 7919) % (1 << 20)
        part = base[:size]
        a, made = stage(streams[0], None, [part], lambda x, n=step: torch.sin(x * n) + 1)
        b, doubled = stage(streams[1], made, [a], lambda x: (x * 2).sqrt())
        c, sorted_too = stage(streams[2], made, [a], lambda x: torch.sort(x, descending=True)[0])
        del a  # while two streams work on it
        streams[0].wait_event(sorted_too)
        total, _ = stage(streams[0], doubled, [b, c], lambda x, y: (x - y).sum())
        del b, c
        totals.append(total)
    for stream in streams:
        torch.cuda.current_stream().wait_stream(stream)
    for total in totals:
        print(total.item().hex())
    torch.cuda.synchronize()
    print(f"torch_streams: seconds {time.perf_counter() - begin:.6f}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
