"""What a program's file tells before it runs: is it one that a preload reaches, and how does it
come to CUDA."""

from __future__ import annotations

import mmap
import os
import platform
import re
import shutil
import stat
import struct
from typing import NamedTuple

from cmp_preload.console.errors import Failure

MACHINES = {"x86_64": 62, "aarch64": 183}
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NEEDED, DT_STRTAB = 1, 5
SEGMENT = struct.Struct("<IIQQQQ16x")
# No more is read of what a damaged file may claim.
MOST_PATH, MOST_NAME, MOST_DYNAMIC = 4096, 256, 1 << 16


class Elf(NamedTuple):
    bits: int
    machine: int
    interpreter: str  # the dynamic linker; empty: none
    needed: list  # names of shared libraries


def find_program(name: str, path: str | None = None) -> str | None:
    """The file that starting `name` starts."""
    return shutil.which(name, path=path)


def read_elf(path: str) -> Elf | None:
    """None if the file is not ELF of this machine's byte order, or is damaged."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            if head[:4] != b"\x7fELF" or len(head) < 64 or head[5] != 1:
                return None
            machine = struct.unpack_from("<H", head, 18)[0]
            if head[4] != 2:
                return Elf(32, machine, "", [])
            (offset,) = struct.unpack_from("<Q", head, 32)
            size, count = struct.unpack_from("<HH", head, 54)
            if count and size != SEGMENT.size:
                return None
            segments = list(SEGMENT.iter_unpack(_at(file, offset, size * count)))
            interpreter, needed = "", []
            for kind, _, where, _, _, length in segments:
                if kind == PT_INTERP:
                    interpreter = _string_at(file, where, min(length, MOST_PATH))
                elif kind == PT_DYNAMIC and not needed:
                    data = _at(file, where, min(length, MOST_DYNAMIC))
                    needed = _needed(file, segments, data[: len(data) // 16 * 16])
            return Elf(64, machine, interpreter, needed)
    except (OSError, ValueError, OverflowError, struct.error):
        return None


def _needed(file, segments: list, dynamic: bytes) -> list:
    entries = list(struct.iter_unpack("<qQ", dynamic))
    strings = next((value for tag, value in entries if tag == DT_STRTAB), 0)
    for kind, _, start, address, _, extent in segments:
        if kind == PT_LOAD and address <= strings < address + extent:
            base = start + strings - address
            names = (value for tag, value in entries if tag == DT_NEEDED)
            return [_string_at(file, base + name, MOST_NAME) for name in names]
    return []


def _at(file, where: int, length: int) -> bytes:
    """So much of it as the file has."""
    file.seek(where)
    return file.read(length)


def _string_at(file, where: int, most: int) -> str:
    return _at(file, where, most).split(b"\0")[0].decode(errors="replace")


def contains(path: str, texts: list[bytes]) -> list[bytes]:
    """Those of `texts` that stand somewhere in the file."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return [text for text in texts if data.find(text) >= 0]
    except (OSError, ValueError):
        return []


def script_interpreter(path: str) -> list[str] | None:
    """The words of a script's #! line."""
    try:
        with open(path, "rb") as file:
            line = file.read(256).split(b"\n")[0]
    except OSError:
        return None
    return os.fsdecode(line[2:]).split() if line[:2] == b"#!" else None


def is_privileged(path: str) -> str | None:
    """Why the dynamic linker would run it in secure mode, where preloads are ignored."""
    try:
        found = os.stat(path)
        if found.st_mode & stat.S_ISUID and found.st_uid != os.geteuid():
            return "it is set-user-id"
        if found.st_mode & stat.S_ISGID and found.st_gid != os.getegid():
            return "it is set-group-id"
        if os.geteuid() != 0 and os.getxattr(path, "security.capability"):
            return "it has file capabilities"
    except OSError:
        pass
    return None


def why_not_preloaded(name: str, path: str | None = None) -> str | None:
    """Why the dynamic linker would not load the pool into this program; None if it would, or if
    that cannot be told."""
    program = find_program(name, path)
    if program is None:
        return None
    privileged = is_privileged(program)
    if privileged:
        return f"{privileged}, so the dynamic linker ignores preloads"
    elf = read_elf(program)
    if elf is None:
        return None
    if elf.bits != 64 or elf.machine != MACHINES.get(platform.machine(), elf.machine):
        return "it is built for another machine"
    if not elf.interpreter:
        return "it is linked statically, without a dynamic linker"
    if "musl" in elf.interpreter:
        return "it uses musl; the pool needs glibc"
    return None


def require_preload(name: str, path: str | None, what: str) -> None:
    """Failure if the pool would not be loaded into this program: then there is nothing to `what`."""
    reason = why_not_preloaded(name, path)
    if reason is not None:
        raise Failure(f"nothing to {what}: {name} would run without the pool: {reason}")


def links_static_runtime(path: str) -> bool:
    """Is the CUDA runtime part of the file? It opens the driver by name and asks it for its
    functions, where a program that links the shared runtime does neither."""
    return len(contains(path, [b"libcuda.so.1\0", b"cuGetProcAddress"])) == 2


def version_of_library(path: str) -> str:
    """The version in a library's real name: libcudart.so.13.0.96 gives 13.0.96."""
    match = re.search(r"\.so\.([\d.]+)$", os.path.realpath(path))
    return match.group(1) if match else "of unknown version"
