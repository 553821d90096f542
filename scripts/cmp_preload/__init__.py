"""The command line program cmp-preload: cli.py on top, below it rooms, each of which uses only rooms
that stand after it here:

commands, reporters, measuring, diagnosis, records, pool, console
"""


def library() -> str:
    """The path of libcmp_preload.so in an installed package, for a launcher to put into LD_PRELOAD.
    FileNotFoundError where it is not in the package, as in a source tree."""
    return _in_the_package("libcmp_preload.so")


def pool_library() -> str:
    """The same of libcmp.so, the pool itself, for frameworks that take an allocator (its functions:
    core/stream_allocator.h)."""
    return _in_the_package("libcmp.so")


def _in_the_package(name: str) -> str:
    import os

    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path} is not there: this is not the installed package")
    return path
