"""Files for the user: private, no symbolic link followed, nothing replaced that was not ours."""

from __future__ import annotations

import os

from cmp_preload.console.errors import Failure


def write_private(path: str, beginning: str, content: str) -> None:
    """Writes `content`, which begins with `beginning`; a file there that begins so is replaced.
    Failure with one line if it cannot be written; then nothing of it is left."""
    assert content.startswith(beginning)
    if os.path.lexists(path) and not _begins(path, beginning.encode()):
        raise Failure(f"{path}: a file that cmp-preload did not write is there")
    fresh = path + ".new"
    made = False
    try:
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        made = True
        with open(file, "w", encoding="utf-8") as stream:
            stream.write(content)
        os.rename(fresh, path)
    except OSError as error:
        if made:
            os.unlink(fresh)
        raise Failure(f"cannot write {path if made else fresh}: {error.strerror}") from None


def _begins(path: str, beginning: bytes) -> bool:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return os.read(file, len(beginning)) == beginning
        finally:
            os.close(file)
    except OSError:
        return False
