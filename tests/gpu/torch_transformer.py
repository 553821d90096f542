"""A transformer on batches of random length, where sizes rarely repeat: milliseconds a step.

torch_transformer.py [STEPS]; PYTORCH_NO_CUDA_MEMORY_CACHING=1 turns PyTorch's own cache off.
"""

import sys
import time

import torch

WIDTH = 512

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300
torch.manual_seed(0)
layer = torch.nn.TransformerEncoderLayer(
    WIDTH, 8, dim_feedforward=2048, dropout=0.0, batch_first=True
)
model = torch.nn.TransformerEncoder(layer, 4).cuda()
optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
shapes = torch.Generator().manual_seed(1)
times = []
loss = torch.zeros(())
for _ in range(steps):
    begin = time.perf_counter()
    batch = int(torch.randint(2, 17, (), generator=shapes))
    length = int(torch.randint(16, 769, (), generator=shapes))
    optimiser.zero_grad(set_to_none=True)
    loss = model(torch.randn(batch, length, WIDTH, device="cuda")).square().mean()
    loss.backward()
    optimiser.step()
    torch.cuda.synchronize()
    times.append((time.perf_counter() - begin) * 1e3)
late = sorted(times[steps // 3 :])
print(f"loss {loss.item():.6f}")
print(f"# ms a step: mean {sum(late) / len(late):.2f}, median {late[len(late) // 2]:.2f}")
