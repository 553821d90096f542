"""Where a program submits work around a free that would owe order: what CMP_SHAKE records, and where
it holds work back (scripts/docs/formats/shake-sites.md)."""

from __future__ import annotations

import os
from typing import NamedTuple

from cmp_preload.console.errors import Failure

BEGINNING = "#cmp-shake-sites "
FORMAT = 1
END = "#end"  # of what a process saw that ended by itself
SUFFIX = ".sites"  # of reports in a folder
UNKNOWN = "-"
KINDS = ("order", "host")


class Site(NamedTuple):
    """The fields of a line. Of three calls, the earlier submission, the free and the later one:
    which call, and the library and address that it came from."""

    id: str  # the same in every run of the program
    kind: str
    thread: int  # of the earlier submission
    count: int  # how often it was executed
    holds: int
    effective: int  # holds during which later work really ran first
    earlier_call: str
    earlier_where: str
    earlier_stream: str
    free_where: str
    free_thread: int
    free_bytes: int
    later_call: str
    later_where: str
    later_stream: str


_NUMBERS = ("thread", "count", "holds", "effective", "free_thread", "free_bytes")


def _site_of(line: str) -> Site:
    fields = line.split("\t")
    if len(fields) < len(Site._fields):
        raise ValueError("has too few columns")
    named = dict(zip(Site._fields, fields))
    if named["kind"] not in KINDS:
        raise ValueError(f"has the kind {named['kind']!r}")
    numbers = {
        name: 0 if named[name] == UNKNOWN else int(named[name], 10) for name in _NUMBERS
    }
    if min(numbers.values()) < 0:
        raise ValueError("counts less than nothing")
    return Site(**{**named, **numbers})


def read(path: str) -> list[Site]:
    """Failure with one line if it is no such file."""
    try:
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            lines = file.read().split("\n")
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    if not lines[0].startswith(BEGINNING):
        raise Failure(f"{path}: not a file of sites")
    version = lines[0][len(BEGINNING) :].strip()
    if version != str(FORMAT):
        raise Failure(f"{path}: sites of format {version}; this cmp-preload reads {FORMAT}")
    found = []
    for number, line in enumerate(lines[1:], 2):
        if not line or line.startswith("#"):
            continue
        try:
            found.append(_site_of(line))
        except ValueError as error:
            raise Failure(f"{path}:{number}: {error}") from None
    return found


class Reports(NamedTuple):
    """Of all processes of a run."""

    sites: list[Site]  # whose counts add up; by what was executed most
    processes: int
    cut_short: int  # processes that were killed, or ended without their exit handlers


def read_folder(folder: str) -> Reports:
    together: dict[str, Site] = {}
    paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(SUFFIX)]
    for path in paths:
        for site in read(path):
            same = together.get(site.id)
            together[site.id] = site if same is None else _sum(same, site)
    sites = sorted(together.values(), key=lambda site: (-site.count, site.id))
    return Reports(sites, len(paths), sum(not _has_end(path) for path in paths))


def _has_end(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read().endswith(f"{END}\n".encode())


def _sum(one: Site, other: Site) -> Site:
    return one._replace(
        count=one.count + other.count,
        holds=one.holds + other.holds,
        effective=one.effective + other.effective,
    )


def write(path: str, sites: list[Site]) -> None:
    lines = [f"{BEGINNING}{FORMAT}", "#" + " ".join(Site._fields)]
    lines += ["\t".join(map(str, site)) for site in sites] + [END]
    try:
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write("\n".join(lines) + "\n")
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
