"""Statistics files: the JSON that a process left at its end, or the counters (FILE.live) of one
that still runs or was killed."""

from __future__ import annotations

import json
import os
import struct

from cmp_preload.console.errors import Failure
from cmp_preload.records import live

JSON_BEGINNING = b'{\n  "cmp_statistics":'
FORMAT = 1  # scripts/docs/formats/README.md says what another one means


def read(path: str, find_library) -> dict:
    """The statistics in `path`. Failure with one line if it holds none."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        if data.startswith(live.BEGINNING):
            return live.read(data, find_library)
        if not data.startswith(JSON_BEGINNING):
            raise ValueError("not a statistics file")
        found = json.loads(data)
        if found["cmp_statistics"] != FORMAT:
            raise ValueError(
                f"statistics of format {found['cmp_statistics']}; this cmp-preload reads {FORMAT}"
            )
        return found
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, struct.error) as error:
        raise Failure(f"{path}: {error}") from None


def files_in(folder: str) -> list[str]:
    """Statistics files in a folder: of two of one process, the one that it left at its end."""
    names = sorted(os.listdir(folder))
    return [
        os.path.join(folder, name)
        for name in names
        if name.endswith(".json") or (name.endswith(".live") and name[: -len(".live")] not in names)
    ]
