"""Runs a reader of scripts/ on every file of a corpus, then on mutations of them:

    TARGET.py [--inputs N] [--seed S] CORPUS...      files, and folders of files

A reader has a result, or says in one line what is wrong (Failure); any other exception, more memory
or more time than that is a find. Its input is left in a file, whose name is said. The same seed gives
the same inputs.
"""

import argparse
import pathlib
import random
import resource
import signal
import sys
import tempfile
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))
from cmp_preload.console.errors import Failure  # noqa: E402

MOST_SECONDS = 20  # for one input, on a busy machine
MOST_MEMORY = 1 << 30  # more than without one
MOST_BYTES = 64 << 10
PAGE = 4096


class Mutator:
    def __init__(self, seed, corpus):
        self._random = random.Random(seed)
        self._corpus = corpus
        self._last = b""

    def next(self):
        # Mostly afresh, sometimes further on from the last one.
        data = self._last if self._last and self._below(4) == 0 else self._any()
        for _ in range(1 + self._below(1 + self._below(8))):
            data = self._mutated(data)
        self._last = data[:MOST_BYTES]
        return self._last

    def _below(self, end):
        return self._random.randrange(end)

    def _any(self):
        return self._random.choice(self._corpus)

    def _place(self, data):
        """Mostly near a beginning: the file's, or a page's."""
        page = self._below(1 + len(data) // PAGE) * PAGE if self._below(2) else 0
        return min(len(data), page + self._below(1 << self._below(14)))

    def _part(self, data):
        begin = self._place(data)
        return data[begin : begin + self._below(17 if self._below(4) else len(data) + 1)]

    def _mutated(self, data):
        kind, at = self._below(9), self._place(data)
        if kind == 0:
            return data[:at] + self._part(self._any()) + data[at:]
        if kind == 1:
            return data[:at] + data[at + len(self._part(data)) :]
        if kind == 2:
            return data[: self._below(len(data) + 1)] if self._below(4) == 0 else data
        if kind == 3:  # the beginning of the one, the end of another
            other = self._any()
            return data[:at] + other[self._place(other) :]
        if kind == 4:
            return self._with_other_digits(data, at)
        if kind in (5, 6):  # a number at an edge, or next to what is there
            width = 1 << self._below(4)
            here = int.from_bytes(data[at : at + width], "little")
            edge = 1 << self._below(64)
            number = self._random.choice((edge, edge - 1, ~edge, here + 1, here - 1, 0))
            new = (number % (1 << 8 * width)).to_bytes(width, "little")
            return data[:at] + new + data[at + width :]
        new = bytes([self._below(256)])
        return data[:at] + new + data[at + (kind == 7) :]

    def _with_other_digits(self, data, at):
        while at < len(data) and not 48 <= data[at] < 58:
            at += 1
        end = at
        while end < len(data) and 48 <= data[end] < 58:
            end += 1
        number = str((1 << self._below(70)) - self._below(2)).encode()
        return data[:at] + self._random.choice((number, b"-1", b"1e999", b"")) + data[end:]


def _too_long(*_):
    raise TimeoutError(f"it takes more than {MOST_SECONDS} s")


def _is_found(reader, path, results):
    """Is it more than a result, or a failure of one line? Results are counted."""
    signal.alarm(MOST_SECONDS)
    try:
        reader(str(path))
        results.append(path)
    except Failure as failure:
        message = str(failure)
        if not message.isprintable() or len(message) > 300:
            print(f"found: no clear line: {message!r}", file=sys.stderr)
            return True
    except Exception:  # pylint: disable=broad-except
        print(f"found: {traceback.format_exc()}", file=sys.stderr)
        return True
    finally:
        signal.alarm(0)
    return False


def main(reader):
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--inputs", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("corpus", nargs="+", type=pathlib.Path)
    options = parser.parse_args()
    files = [
        file
        for path in options.corpus
        for file in (sorted(path.iterdir()) if path.is_dir() else [path])
    ]
    corpus = [file.read_bytes() for file in files]
    signal.signal(signal.SIGALRM, _too_long)
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_MEMORY, resource.RLIM_INFINITY))
    results = []
    for file in files:
        if _is_found(reader, file, results):
            sys.exit(f"with {file}")
    if not results:
        sys.exit("of no file of the corpus there is a result: nothing would be tried")
    mutator = Mutator(options.seed, corpus)
    name = f"{pathlib.Path(sys.argv[0]).stem}-seed{options.seed}.input"
    with tempfile.TemporaryDirectory(prefix="cmp-fuzz-") as folder:
        path = pathlib.Path(folder) / "input"
        for i in range(options.inputs):
            data = mutator.next()
            path.write_bytes(data)
            if _is_found(reader, path, results):
                pathlib.Path(name).write_bytes(data)
                sys.exit(f"input {i} of --seed {options.seed} is left in {name}")
    print(f"{len(files)} inputs of the corpus, then {options.inputs} with --seed {options.seed}")
