"""libcmp_preload.so: where it is, and what it says of itself. The options and counters are asked
of the library, so that nothing here can differ from what it does."""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import stat
from typing import NamedTuple

from cmp_preload.console.errors import Failure

NAME = "libcmp_preload.so"


def flag_of(name: str) -> str:
    """The option of the command line for a setting CMP_NAME."""
    return "--" + name[len("CMP_") :].lower().replace("_", "-")


class Option(NamedTuple):
    name: str  # CMP_...
    default: str
    values: str  # what is right, in words
    meaning: str

    @property
    def flag(self) -> str:
        return flag_of(self.name)


class Library:
    def __init__(self, path: str) -> None:
        self.path = path
        self._loaded = None

    def _functions(self) -> ctypes.CDLL:
        if self._loaded is None:
            try:
                self._loaded = ctypes.CDLL(self.path)
                self._loaded.cmp_preload_options.restype = None
            except (OSError, AttributeError) as error:
                raise Failure(f"{self.path} cannot be used: {error}") from None
        return self._loaded

    def version(self) -> str:
        function = self._functions().cmp_preload_version
        function.restype = ctypes.c_char_p
        return function().decode()

    def _visited(self, function: str, fields: int, *given: bytes) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []

        def visit(*texts: bytes) -> None:
            rows.append(tuple(text.decode(errors="replace") for text in texts))

        visitor = ctypes.CFUNCTYPE(None, *[ctypes.c_char_p] * fields)
        getattr(self._functions(), function)(*given, visitor(visit))
        return rows

    def options(self) -> list[Option]:
        return [Option(*row) for row in self._visited("cmp_preload_options", 4)]

    def counters(self, kind: str) -> list[str]:
        """Names of the counters of each "tier" or of the "process", as in a statistics file."""
        return [name for its, name, _ in self._visited("cmp_preload_counters", 3) if its == kind]

    def is_right(self, name: str, value: str) -> bool:
        return self._functions().cmp_preload_is_right(os.fsencode(name), os.fsencode(value)) != 0

    def meant(self, name: str) -> str | None:
        """What to do about a variable that is no setting but resembles one, as did you mean CMP_MODE?"""
        if not hasattr(self._functions(), "cmp_preload_misspelled"):
            return None  # of an older library
        said = self._visited("cmp_preload_misspelled", 1, os.fsencode(name))
        return said[0][0].rsplit("; ", 1)[1] if said else None

    def replay_program(self) -> str:
        """cmp-replay: beside the library in a build folder, else where programs are installed."""
        folder = os.path.dirname(self.path)
        for place in (".", "../bin", "../../bin"):
            path = os.path.normpath(os.path.join(folder, place, "cmp-replay"))
            if os.path.isfile(path):
                return path
        raise Failure(
            f"{folder}/cmp-replay is not there: cmake --build {folder} --target cmp-replay, or "
            "install it with the library"
        )

    def preload_path(self, private_folder: str | None = None) -> str:
        """What to write into LD_PRELOAD: a list of names separated by colons and spaces, so that
        none may be in the path. A link without them helps: in `private_folder`, which outlives all
        that is started, or else one that stays."""
        if can_be_preloaded(self.path):
            return self.path
        if private_folder is not None and can_be_preloaded(private_folder):
            link = os.path.join(private_folder, NAME)
            if not os.path.islink(link):
                os.symlink(self.path, link)
            return link
        import tempfile  # seldom needed, and slow to load

        problem = "no folder without spaces and colons"
        for folder in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):
            try:
                if can_be_preloaded(folder):
                    return _link_in(folder, self.path)
            except OSError as error:
                problem = f"{folder}: {error.strerror}"
        raise Failure(
            f"LD_PRELOAD cannot name {self.path}, which has spaces or colons, and a link to it "
            f"cannot be made ({problem}); make one and give it: --library LINK"
        )


def can_be_preloaded(path: str) -> bool:
    """The dynamic linker takes LD_PRELOAD apart at colons and spaces."""
    return not any(c in path for c in " :\t\n")


def _link_in(folder: str, path: str) -> str:
    """A link to `path` in a folder of this user's below `folder`, always the same one."""
    import hashlib  # seldom needed, and slow to load

    own = os.path.join(folder, f"cmp-preload-{os.geteuid()}")
    os.makedirs(own, mode=0o700, exist_ok=True)
    found = os.lstat(own)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(errno.EPERM, f"{own} is not this user's own")
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    link = os.path.join(own, name, NAME)
    os.makedirs(os.path.dirname(link), mode=0o700, exist_ok=True)
    try:
        os.symlink(path, link)
    except FileExistsError:
        if os.readlink(link) != path:
            raise
    return link


def find(given: str | None, here: str) -> Library:
    """The library: given, or the one that this cmp-preload was built or installed with."""
    if given is not None:
        if not os.path.isfile(given):
            raise Failure(f"--library: {given} is not there", 2)
        return Library(os.path.abspath(given))
    above = os.path.dirname(here)
    for place in (
        here,
        os.path.join(above, "build"),
        os.path.join(above, "lib"),
        os.path.join(above, "lib64"),
        *glob.glob(os.path.join(above, "lib", "*-linux-*")),
    ):
        path = os.path.join(place, NAME)
        if os.path.isfile(path):
            return Library(path)
    raise Failure(
        f"{NAME} is not there; build first (cmake --preset release && cmake --build "
        f"build), or give --library PATH",
        2,
    )
