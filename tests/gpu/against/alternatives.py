"""What compare_all.py compares: each alternative, where it was found on this machine, and a process
of build/against that serves requests with it.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import json
import os
import pathlib
import re
import select
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field

import programs

HERE = pathlib.Path(__file__).resolve().parent
COMPILE_S = 150


class Missing(Exception):
    """An alternative is not there, and why."""


class Failed(Exception):
    """A request failed, and why."""


@dataclass
class Alternative:
    name: str
    what: str
    allocator: str  # what build/against takes
    adaptor: str = ""  # of which file of this folder
    settings: dict[str, str] = field(default_factory=dict)
    preload: str = ""  # a library
    folders: list[str] = field(default_factory=list)  # of libraries
    missing: str | None = None


def pool(name: str, what: str, **settings: str) -> Alternative:
    return Alternative(name, f"the pool, preloaded{what}", "real", settings=settings,
                       preload=str(programs.LIBRARY))


def library(name: str, what: str, **settings: str) -> Alternative:
    return Alternative(name, f"the pool as a library{what}", "cmp", "cmp", settings=settings)


def every() -> list[Alternative]:
    """The first is what the others are compared with. No more than 15: of more contexts at once the
    driver refuses some (H200)."""
    found = [
        pool("cmp", ""),
        pool("cmp-none", ", CMP_FREE_SYNC=none", CMP_FREE_SYNC="none"),
        library("cmp-library", ""),
        library("cmp-library-none", ", CMP_FREE_SYNC=none", CMP_FREE_SYNC="none"),
        Alternative("real", "cudaMalloc and cudaFree", "real"),
        Alternative("async", "cudaMallocAsync, its pool as it is", "async"),
        Alternative("async-max", "cudaMallocAsync, its pool keeps everything", "async-max"),
        Alternative("cub", "CUB's CachingDeviceAllocator, keeping everything", "cub", "cub"),
        Alternative("torch", "PyTorch's caching allocator", "torch", "torch"),
        *(Alternative(f"rmm-{name}", f"RMM's {resource}_memory_resource", f"rmm-{name}", "rmm")
          for name, resource in (("pool", "pool"), ("arena", "arena"), ("binning", "binning"),
                                 ("async", "cuda_async"))),
        Alternative("malloc", "the host's malloc, which is no device memory: a limit", "malloc"),
    ]
    paths = {name: ctypes.util.find_library(name) or "" for name in ("jemalloc", "mimalloc")}
    name = next((name for name, path in paths.items() if path), "jemalloc")
    return [*found, Alternative(name, f"the same of {name}", "malloc", preload=paths[name],
                                missing=None if paths[name] else "no libjemalloc or libmimalloc")]


# ---- Adaptors of other projects


def package(name: str) -> pathlib.Path:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    places = list(spec.submodule_search_locations or []) if spec else []
    if not places:
        raise Missing(f"this Python has no {name}")
    return pathlib.Path(places[0])


def cuda_headers() -> list[pathlib.Path]:
    """The folders with cuda_runtime_api.h, the one that the project was built with first."""
    cache = (programs.BUILD / "CMakeCache.txt").read_text(encoding="utf-8")
    built_with = re.search(r"^CMP_CUDA_INCLUDE:[A-Z]+=(.*)$", cache, re.M)
    places = [pathlib.Path(built_with[1])] if built_with else []
    places += [pathlib.Path("/usr/local/cuda/include"), pathlib.Path("/opt/cuda/include")]
    return [place for place in places if (place / "cuda_runtime_api.h").exists()]


def folders_of(name: str, *places: pathlib.Path) -> list[str]:
    """The folders under which `name` lies, for the compiler or the loader."""
    return [str(path)[: -len(name) - 1] for place in places for path in sorted(place.rglob(name))]


def cccl() -> list[str]:
    for place in cuda_headers():
        for folder in (place, place / "cccl"):
            if (folder / "cub" / "util_allocator.cuh").exists():
                return [str(folder)]
    raise Missing("no toolkit's folder has cub/util_allocator.cuh")


@dataclass
class Recipe:
    includes: list[str]
    libraries: list[str] = field(default_factory=list)  # whole paths
    options: list[str] = field(default_factory=list)


def recipe(adaptor: str) -> Recipe:
    """How to compile it."""
    if adaptor == "cub":
        return Recipe(cccl())
    if adaptor == "torch":
        place = package("torch")
        libraries = [place / "lib" / f"lib{name}.so" for name in ("c10_cuda", "c10")]
        for file in libraries:
            if not file.exists():
                raise Missing(f"PyTorch has no {file.name}")
        config = place / "share" / "cmake" / "Torch" / "TorchConfig.cmake"
        abi = re.search(r"-D_GLIBCXX_USE_CXX11_ABI=\d",
                        config.read_text(encoding="utf-8") if config.exists() else "")
        return Recipe([str(place / "include")], [str(file) for file in libraries],
                      [abi[0]] if abi else [])
    if adaptor == "rmm":
        places = [package("librmm")]
        try:
            places.append(package("rapids_logger"))
        except Missing:
            pass  # older ones had none
        includes = [name for header in ("rmm/cuda_stream_view.hpp", "cuda/memory_resource",
                                        "thrust/version.h", "nvtx3/nvtx3.hpp",
                                        "rapids_logger/logger.hpp")
                    for name in folders_of(header, *places)]
        libraries = [f"{folder}/{name}" for name in ("librmm.so", "librapids_logger.so")
                     for folder in folders_of(name, *places)]
        if not any(file.endswith("librmm.so") for file in libraries):
            raise Missing("the package librmm has no librmm.so")
        # Where the wheel has no CCCL of its own.
        try:
            includes += cccl()
        except Missing:
            pass
        return Recipe(includes, libraries, ["-DLIBCUDACXX_ENABLE_EXPERIMENTAL_MEMORY_RESOURCE"])
    raise Missing(f"no adaptor {adaptor}")


class Compilation:
    """A compiler that is under way, unless what it would make is there already."""

    def __init__(self, adaptor: str) -> None:
        how = recipe(adaptor)
        self.folders = sorted({str(pathlib.Path(file).parent) for file in how.libraries})
        folder = programs.BUILD / "against-adaptors"
        folder.mkdir(exist_ok=True)
        self.file = folder / f"against_{adaptor}.so"
        self._made = folder / f"against_{adaptor}.new.so"
        self._log = folder / f"{adaptor}.log"
        compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
        if compiler is None:
            raise Missing("there is no C++ compiler")
        includes = list(dict.fromkeys([*how.includes, *map(str, cuda_headers()[:1])]))
        command = [compiler, "-std=c++20", "-O2", "-fPIC", "-shared", "-w", *how.options,
                   *(f"-I{name}" for name in includes), str(HERE / f"{adaptor}.cpp"),
                   "-o", str(self._made), *how.libraries,
                   *(f"-Wl,-rpath,{name}" for name in self.folders)]
        note = " ".join(command)
        sources = [HERE / f"{adaptor}.cpp", HERE / "allocator.h"]
        known = self._log.exists() and self._log.read_text(encoding="utf-8").split("\n", 1)[0]
        self._process = None
        if known == note and self.file.exists() and all(
                self.file.stat().st_mtime > source.stat().st_mtime for source in sources):
            return
        self.file.unlink(missing_ok=True)
        with open(self._log, "w", encoding="utf-8") as log:
            log.write(note + "\n")
            log.flush()
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def wait(self) -> None:
        if self._process is None:
            return
        try:
            code = self._process.wait(COMPILE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise Missing(f"its adaptor was not compiled within {COMPILE_S} s") from None
        if code != 0:
            said = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
            errors = [line for line in said if "error" in line] or said[-1:] or ["no message"]
            raise Missing(f"its adaptor does not compile ({self._log}): {errors[0].strip()[-200:]}")
        self._made.replace(self.file)


def prepare(alternatives: list[Alternative]) -> None:
    """Compiles what they need, all at once; says of each that it is missing, and why."""
    compilations: dict[str, Compilation | Missing] = {}
    foreign = [one for one in alternatives if one.adaptor not in ("", "cmp") and not one.missing]
    for one in foreign:
        if one.adaptor in compilations:
            continue
        try:
            compilations[one.adaptor] = Compilation(one.adaptor)
        except (Missing, OSError) as reason:
            compilations[one.adaptor] = Missing(str(reason))
    for name, compilation in compilations.items():
        if isinstance(compilation, Compilation):
            try:
                compilation.wait()
            except Missing as reason:
                compilations[name] = reason
    for one in foreign:
        compilation = compilations[one.adaptor]
        if isinstance(compilation, Missing):
            one.missing = str(compilation)
        else:
            one.adaptor = str(compilation.file)
            one.folders = compilation.folders
    for one in alternatives:
        if one.adaptor == "cmp":
            one.adaptor = str(programs.BUILD / "libagainst_cmp.so")


# ---- Processes


class Process:
    """One process with one alternative. It is started at once, and asked when it is needed."""

    def __init__(self, alternative: Alternative, simulated: bool, reserve_bytes: int) -> None:
        self.alternative = alternative
        env = programs.environment(simulated) | alternative.settings
        env["LD_LIBRARY_PATH"] = ":".join(filter(
            None, [env.get("LD_LIBRARY_PATH"), str(programs.BUILD), *alternative.folders]))
        env["CMP_AGAINST_RESERVE"] = str(reserve_bytes)
        if alternative.preload:
            env["LD_PRELOAD"] = alternative.preload
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [str(programs.BUILD / "against"), alternative.allocator,
             *filter(None, [alternative.adaptor])],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors)
        self._text = b""
        self._introduction: dict | None = None

    def introduction(self, limit_s: float) -> dict:
        """What it is. Missing, if it cannot be here."""
        if self._introduction is None:
            try:
                self._introduction = self._read(limit_s)
            except Failed as reason:
                raise Missing(f"it does not start: {reason}") from None
        if "missing" in self._introduction:
            raise Missing(self._introduction["missing"])
        one = self.alternative
        if (one.preload == str(programs.LIBRARY)) != self._introduction["preloaded"]:
            raise Missing("the pool is not preloaded")
        of_malloc = self._introduction["malloc"]
        if one.allocator == "malloc" and one.preload and one.name not in of_malloc:
            raise Missing(f"malloc is that of {of_malloc}")
        return self._introduction

    def ask(self, request: str, limit_s: float) -> dict:
        try:
            self._process.stdin.write(request.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise Failed(self._last_words()) from None
        return self._read(limit_s)

    def _read(self, limit_s: float) -> dict:
        end = time.monotonic() + limit_s
        while b"\n" not in self._text:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise Failed(f"took longer than {limit_s:.0f} s")
            some = os.read(self._process.stdout.fileno(), 65536)
            if not some:
                raise Failed(self._last_words())
            self._text += some
        line, self._text = self._text.split(b"\n", 1)
        return json.loads(line)

    def _last_words(self) -> str:
        try:
            code = self._process.wait(10)
        except subprocess.TimeoutExpired:
            code = None
        return f"exit code {code}: {self.said() or 'no message'}"

    def said(self) -> str:
        """The end of what it wrote on stderr."""
        self._errors.seek(0)
        return " ".join(self._errors.read().decode(errors="replace").split())[-300:]

    def dismiss(self) -> None:
        """Asks it to end, and does not wait for that."""
        try:
            self._process.stdin.close()
        except OSError:
            pass  # it has ended already

    def end(self) -> str:
        """Its memory is free when this returns; what it said."""
        self.dismiss()
        for limit_s in (10, 30):
            try:
                self._process.wait(limit_s)
                break
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.stdout.close()
        said = self.said()
        self._errors.close()
        return said
