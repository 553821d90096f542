"""A small GPT-2 (random weights) of the transformers library: a few steps of training, then
generation, whose sizes change with every token. Run it with PYTORCH_NO_CUDA_MEMORY_CACHING=1.
"""

import sys
import time

import torch
from transformers import GPT2Config, GPT2LMHeadModel


def main() -> int:
    torch.manual_seed(3)
    torch.use_deterministic_algorithms(True, warn_only=True)
    config = GPT2Config(n_layer=4, n_head=4, n_embd=256, vocab_size=1000, n_positions=256,
                        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    model = GPT2LMHeadModel(config).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tokens = torch.randint(0, 1000, (8, 128), device="cuda")
    losses = []
    begin = 0.0
    for step in range(25):
        if step == 5:
            torch.cuda.synchronize()
            begin = time.perf_counter()
        loss = model(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        made = model.generate(tokens[:4, :16], max_new_tokens=64, do_sample=False,
                              pad_token_id=0)
    seconds = time.perf_counter() - begin
    print(losses[0].hex(), losses[-1].hex(), made.sum().item())
    print(f"transformers_run: seconds {seconds:.6f}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
