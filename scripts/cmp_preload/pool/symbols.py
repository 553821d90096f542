"""Which function an address is in, of a program's file or a library beside it; binutils' addr2line
knows, where it is installed and the file has symbols."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess

from cmp_preload.pool import program_file

ET_EXEC = 2  # loaded where the file says, so its addresses are not those from its beginning


class Symbols:
    def __init__(self, program: str, environment: dict[str, str]) -> None:
        path = environment.get("PATH")
        found = program_file.find_program(program, path)
        self._program = os.path.realpath(found) if found else ""
        folders = environment.get("LD_LIBRARY_PATH", "").split(":")
        self._folders = [os.path.dirname(self._program), *filter(None, folders)]
        self._addr2line = shutil.which("addr2line", path=path)
        self._known: dict[str, str | None] = {}

    def function(self, where: str) -> str | None:
        """`where`: a file's name and the address that a call in it returns to, as app+0x12a4. The
        function, with file and line if they are known."""
        if where not in self._known:
            self._known[where] = self._function(where)
        return self._known[where]

    def _function(self, where: str) -> str | None:
        match = re.fullmatch(r"([^/]+)\+0x([0-9a-f]+)", where)
        path = self._file(match.group(1)) if match and self._addr2line else None
        if path is None:
            return None
        address = _loaded_at(path) + int(match.group(2), 16) - 1  # inside the call
        try:
            done = subprocess.run(
                [self._addr2line, "-Cfse", path, hex(max(0, address))],
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
        return name if line.startswith("??") else f"{name} at {line.split(' ')[0]}"

    def _file(self, name: str) -> str | None:
        if os.path.basename(self._program) == name:
            return self._program
        paths = (os.path.join(folder, name) for folder in self._folders)
        return next(filter(os.path.isfile, paths), None)


def _loaded_at(path: str) -> int:
    """The first address of a file that is loaded where it says; 0 of every other."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            if head[:5] != b"\x7fELF\x02" or struct.unpack_from("<H", head, 16)[0] != ET_EXEC:
                return 0
            (offset,) = struct.unpack_from("<Q", head, 32)
            (count,) = struct.unpack_from("<H", head, 56)
            file.seek(offset)
            table = file.read(program_file.SEGMENT.size * count)
            segments = program_file.SEGMENT.iter_unpack(table)
            loaded = (one[3] for one in segments if one[0] == program_file.PT_LOAD)
            return min(loaded, default=0)
    except (OSError, struct.error):
        return 0
