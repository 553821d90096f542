"""Writes the assembly of a libcuda that only stands in front of another one, as on WSL 2: each of its
symbols jumps to the other's, and its cuGetProcAddress gives the other's pointers.

  thin_loader.py NM LIBRARY OUTPUT    LIBRARY: whose symbols to have
"""

import re
import subprocess
import sys

nm, library, output = sys.argv[1:]
listed = subprocess.run([nm, "-D", "--defined-only", library], check=True, capture_output=True, text=True)
symbols = sorted(re.findall(r" T (\w+)", listed.stdout))
lines = ["        .text"]
for place, symbol in enumerate(symbols):
    lines += [
        f"        .globl {symbol}",
        f"        .type {symbol}, @function",
        f"{symbol}:",
        f"        jmp *thin_loader_functions+{8 * place}(%rip)",
        f"        .size {symbol}, .-{symbol}",
    ]
lines += [
    "        .data",
    "        .balign 8",
    "        .globl thin_loader_functions, thin_loader_names",
    "        .hidden thin_loader_functions",
    "        .hidden thin_loader_names",
    f"thin_loader_functions: .fill {len(symbols)}, 8, 0",
    "thin_loader_names:",
    *[f'        .asciz "{symbol}"' for symbol in symbols],
    '        .asciz ""',
    '        .section .note.GNU-stack, "", %progbits',
]
with open(output, "w", encoding="ascii") as file:
    file.write("\n".join(lines) + "\n")
