"""The commands that a page of the documentation shows."""

import pathlib
import re
from collections.abc import Iterator


def lines_of(page: pathlib.Path) -> Iterator[str]:
    """Of its ```sh blocks: those that go on in the next line are one, comments are none."""
    for block in re.findall(r"^ *```sh\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"(^|\s+)# .*", "", line).strip()
            if line:
                yield line
