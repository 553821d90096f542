"""Which function an address is in, of a program's file or a library beside it; binutils' addr2line
knows, where it is installed and the file has symbols."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess

from cmp_preload.pool import program_file


class Symbols:
    """Of the files that `command` names, and of libraries beside its program or on the search path."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        path = environment.get("PATH")
        found = program_file.find_program(command[0], path)
        self._named = {}  # as they are called and as they are
        for name in (found or "", *command[1:]):
            path_of = os.path.realpath(name)
            self._named.update({os.path.basename(one): path_of for one in (name, path_of)})
        folders = environment.get("LD_LIBRARY_PATH", "").split(":")
        self._folders = [os.path.dirname(os.path.realpath(found or "")), *filter(None, folders)]
        self._addr2line = shutil.which("addr2line", path=path)
        self._known: dict[str, str | None] = {}

    def frames(self, where: str) -> list[tuple[str, str | None]]:
        """`where`: a file's name and, from its first address on, a call in it, as app+0x12a4; behind
        it after < where that function was called from, and so on. Each with its function, with file
        and line, as far as they are known."""
        frames = where.split("<") if where else []
        for frame in frames:
            if frame not in self._known:
                self._known[frame] = self._function(frame)
        return [(frame, self._known[frame]) for frame in frames]

    def _function(self, where: str) -> str | None:
        match = re.fullmatch(r"([^/]+)\+0x([0-9a-f]+)", where)
        path = self._file(match.group(1)) if match and self._addr2line else None
        if path is None:
            return None
        address = _first_address(path) + int(match.group(2), 16)
        try:
            done = subprocess.run(
                [self._addr2line, "-Cfse", path, hex(address)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=20,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        name, line = (done.stdout.decode(errors="replace").splitlines() + ["??", "??"])[:2]
        if name == "??":
            return None
        line = line.split(" ")[0]  # behind it may be a discriminator
        return _short(name) + ("" if "?" in line else f" at {line}")

    def _file(self, name: str) -> str | None:
        paths = (os.path.join(folder, name) for folder in self._folders)
        return next(filter(os.path.isfile, [self._named.get(name, ""), *paths]), None)


def _short(name: str) -> str:
    """Without parameters and what else a reader can do without."""
    name = name.replace("(anonymous namespace)::", "")
    without = None
    while without != name:
        without, name = name, re.sub(r"\([^()]*\)( const)?", "", name)
    return name


def _first_address(path: str) -> int:
    """By the file itself: 0 of what is loaded anywhere, another of a program with a fixed place."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            (offset,) = struct.unpack_from("<Q", head, 32)
            (count,) = struct.unpack_from("<H", head, 56)
            file.seek(offset)
            table = file.read(program_file.SEGMENT.size * count)
        segments = program_file.SEGMENT.iter_unpack(table)
        return min((one[3] for one in segments if one[0] == program_file.PT_LOAD), default=0)
    except (OSError, struct.error):
        return 0
