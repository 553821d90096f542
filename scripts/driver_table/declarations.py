"""declarations.txt: every entry point of the driver that the headers of any CUDA version named.

Written by `generate-driver-table --read FOLDER`, which adds what a folder of headers declares. So
the table can be generated, and compared, without the headers of one certain version.
"""

import pathlib
import re

from .headers import Function

PATH = pathlib.Path(__file__).with_name("declarations.txt")
TITLE = """\
# Every entry point of CUDA's driver, with each ABI version, in cuda.h, cudaGL.h, cudaEGL.h,
# cudaVDPAU.h and cudaProfiler.h: the first version of CUDA that means it, the symbol, the same of
# its variant for --default-stream per-thread, and the parameters.
# Written by scripts/generate-driver-table --read; these versions of the headers were read:
"""


def read() -> tuple:
    """The versions that were read, and the functions by symbol."""
    if not PATH.exists():
        return [], {}
    versions, functions = [], {}
    for line in PATH.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            versions = re.findall(r"\d+\.\d+", line)
            continue
        rest, parameters = re.fullmatch(r"(.*) \((.*)\)", line).groups()
        words = rest.split()
        for version, symbol in zip(words[::2], words[1::2]):
            functions[symbol] = Function(symbol, parameters, int(version))
    return versions, functions


def types(function: Function) -> list:
    return [kind for kind, _ in function.parameters]


def add(functions: dict, headers) -> None:
    """Adds what the headers declare to the functions; both must agree on what both have."""
    for symbol, function in headers.functions.items():
        known = functions.setdefault(symbol, function)
        known.version = known.version or function.version
        if types(known) != types(function) or function.version not in (0, known.version):
            raise SystemExit(f"CUDA {headers.version} has another {symbol}: {function.version} "
                             f"{types(function)}, known: {known.version} {types(known)}")


def text(versions: list, functions: dict) -> str:
    lines = []
    for function in sorted(functions.values(), key=lambda each: (each.name, each.number)):
        if function.per_thread:
            continue
        words = [str(function.version), function.symbol]
        for suffix in ("_ptds", "_ptsz"):
            variant = functions.get(function.symbol + suffix)
            if variant is not None:
                words += [str(variant.version), variant.symbol]
        parameters = ", ".join(f"{kind} {name}" for kind, name in function.parameters)
        lines.append(f"{' '.join(words)} ({parameters})\n")
    ordered = sorted(set(versions), key=lambda text: [int(part) for part in text.split(".")])
    return TITLE + f"# CUDA {' '.join(ordered)}\n" + "".join(lines)
