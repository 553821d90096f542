"""Reads the headers of a CUDA toolkit: which entry points the driver has.

A declaration gives the ELF symbol and the parameters. The version of CUDA that an ABI version came
with is in the names of cudaTypedefs.h (PFN_cuMemAlloc_v3020): the oldest type is that of the oldest
symbol, and so on. (Compared for CUDA 12.4 to 13.5: the parameters agree.)
"""

import pathlib
import re

HEADERS = ("cuda.h", "cudaGL.h", "cudaEGL.h", "cudaVDPAU.h", "cudaProfiler.h")


class Function:
    """An entry point: the symbol, its parameters as [type, name], and what cuGetProcAddress takes
    for it: a name and the first CUDA version that means this ABI version (0: not known)."""

    def __init__(self, symbol: str, parameters: str, version: int = 0):
        self.symbol = symbol
        self.version = version
        self.parameters = []
        parameters = " ".join(parameters.replace("CUDAAPI", "").split())
        for parameter in [] if parameters in ("", "void") else parameters.split(","):
            match = re.fullmatch(r"(.*?)\s*(\w+)\s*((?:\[\w*\])*)", parameter.strip())
            kind = re.sub(r"\s*\*", "*", match[1]).replace("unsigned int", "unsigned").strip()
            self.parameters.append([kind + "*" * match[3].count("["), match[2]])

    @property
    def name(self) -> str:
        """Without version and per-thread suffix."""
        return re.sub(r"(_v\d+)?(_ptds|_ptsz)?$", "", self.symbol)

    @property
    def number(self) -> int:
        """Of the ABI version, as the symbol has it."""
        match = re.search(r"_v(\d+)(_ptds|_ptsz)?$", self.symbol)
        return int(match[1]) if match else 1

    @property
    def per_thread(self) -> str:
        """The suffix of the variant for --default-stream per-thread, or ''."""
        match = re.search(r"(_ptds|_ptsz)$", self.symbol)
        return match[1] if match else ""


def preprocess(text: str) -> str:
    """The header as a C++ compiler on 64-bit Linux sees it under __CUDA_API_VERSION_INTERNAL, where
    every ABI version is declared under its own symbol. Knows what the headers of CUDA use."""
    text = re.sub(r"/\*.*?\*/", lambda comment: "\n" * comment[0].count("\n"), text, flags=re.S)
    text = re.sub(r"//[^\n]*", "", text).replace("\\\n", " ")
    defined = {"__CUDA_API_VERSION_INTERNAL", "__cplusplus", "__GNUC__", "__LP64__"}
    symbols = {}  # cuX -> the symbol that it stands for
    lines = []
    taken = []  # for each open #if: is this branch read, was one of its branches read

    def holds(condition: str) -> bool:
        condition = re.sub(r"\bdefined\s*\(?\s*(\w+)\s*\)?",
                           lambda name: str(name[1] in defined), condition)
        condition = re.sub(r"\b(?!True\b|False\b)[A-Za-z_]\w*",
                           lambda name: "202002" if name[0] == "__cplusplus" else "0", condition)
        condition = re.sub(r"(\d)[uUlL]+\b", r"\1", condition)
        condition = condition.replace("&&", " and ").replace("||", " or ")
        condition = re.sub(r"!(?!=)", " not ", condition)
        return bool(eval(condition, {"__builtins__": {}}))  # digits and operators only

    for line in text.split("\n"):
        directive = re.match(r"\s*#\s*(\w+)\s*(.*)", line)
        reading = all(branch[0] for branch in taken)
        if directive is None:
            if reading:
                lines.append(re.sub(r"\bcu\w+", lambda name: symbols.get(name[0], name[0]), line))
            continue
        word, rest = directive[1], directive[2].strip()
        if word in ("if", "ifdef", "ifndef"):
            if not reading:
                value = False
            elif word == "if":
                value = holds(rest)
            else:
                value = (rest.split()[0] in defined) == (word == "ifdef")
            taken.append([value, value])
        elif word in ("elif", "else"):
            outside = all(branch[0] for branch in taken[:-1])
            value = outside and not taken[-1][1] and (word == "else" or holds(rest))
            taken[-1] = [value, taken[-1][1] or value]
        elif word == "endif":
            taken.pop()
        elif reading and word == "define":
            name = re.match(r"\w+", rest)[0]
            defined.add(name)
            symbol = re.fullmatch(r"cu\w+\s+(?:__CUDA_API(_PTDS|_PTSZ)\((cu\w+)\)|(cu\w+))", rest)
            if symbol is not None:
                symbols[name] = (symbol[2] or symbol[3]) + (symbol[1] or "").lower()
        elif reading and word == "undef":
            defined.discard(rest)
            symbols.pop(rest, None)
    return "\n".join(lines)


def structures_with_streams(text: str) -> set:
    """The names of the types that hold a CUstream, themselves or in a member."""
    bodies = {}
    for start in re.finditer(r"\b(?:struct|union)\s+(\w+)\s*\{", text):
        depth, end = 1, start.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        words = set(re.findall(r"\w+", text[start.end():end]))
        alias = re.match(r"\s*(\w+)\s*;", text[end:])
        for name in {start[1]} | ({alias[1]} if alias else set()):
            bodies[name] = words
    for alias in re.finditer(r"\btypedef\s+(?:struct\s+|union\s+)?(\w+)\s*\*?\s*(\w+)\s*;", text):
        bodies.setdefault(alias[2], set()).add(alias[1])
    holders = set()
    while True:
        more = {name for name, words in bodies.items() if words & (holders | {"CUstream"})}
        if more == holders:
            return holders
        holders = more


def declarations(text: str) -> list:
    """The entry points that a preprocessed text declares."""
    return [Function(*match) for match in
            re.findall(r"\bCUresult\s+CUDAAPI\s+(\w+)\s*\(([^;{}]*?)\)\s*;", text)]


class Headers:
    """What a folder of CUDA headers declares."""

    def __init__(self, folder: pathlib.Path):
        number = int(re.search(r"^#define CUDA_VERSION (\d+)", self.text(folder / "cuda.h"), re.M)[1])
        self.version = f"{number // 1000}.{number % 1000 // 10}"
        self.functions = {}  # by symbol
        holders = set()
        types = ""
        for name in HEADERS:
            if (folder / name).exists():
                text = preprocess(self.text(folder / name))
                holders |= structures_with_streams(text)
                for function in declarations(text):
                    self.functions.setdefault(function.symbol, function)
            if (folder / name.replace(".h", "Typedefs.h")).exists():
                types += self.text(folder / name.replace(".h", "Typedefs.h"))
        self.holders = holders - {"CUstream"}
        self.find_versions(types)

    @staticmethod
    def text(path: pathlib.Path) -> str:
        return path.read_text(encoding="utf-8", errors="replace")

    def find_versions(self, types: str) -> None:
        variants = {}  # (name, per-thread suffix): functions, versions
        for function in self.functions.values():
            variants.setdefault((function.name, function.per_thread), ([], set()))[0].append(function)
        for name, version, suffix in re.findall(r"\*PFN_(cu\w+?)_v(\d+)(_ptds|_ptsz)?\)", types):
            if (name, suffix) in variants:  # else a function of Windows alone
                variants[name, suffix][1].add(int(version))
        for (name, _), (functions, versions) in variants.items():
            if versions and len(versions) != len(functions):
                raise SystemExit(f"{name}: {len(functions)} symbols, but the versions {versions}")
            functions.sort(key=lambda function: function.number)
            for function, version in zip(functions, sorted(versions)):
                function.version = version

    def takes_stream(self, function: Function) -> bool:
        """As a parameter, or in a structure that one points to."""
        words = set(re.findall(r"\w+", " ".join(kind for kind, _ in function.parameters)))
        return "CUstream" in words or bool(words & self.holders)
