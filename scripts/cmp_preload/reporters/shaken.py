"""What shaken runs showed, for a terminal."""

from __future__ import annotations

import shlex

from cmp_preload.console import words
from cmp_preload.console.arguments import own_command
from cmp_preload.console.documents import document
from cmp_preload.measuring import evidence
from cmp_preload.measuring.shaking import Found, Outcome, Race, Tried
from cmp_preload.records.sites import UNKNOWN, Site

SITES = 5  # of one race that are shown
FRAMES = 4  # of one call


def text(found: Found, command: list[str], symbols) -> str:
    parts = []
    if found.tried:
        parts.append(_table(found.tried))
    if found.interrupted:
        parts.append("Interrupted: this is what the runs until then show.")
    if found.outcome is Outcome.RACE:
        parts += [_race(i + 1, race, symbols) for i, race in enumerate(found.races)]
    parts.append("\n".join(_verdict(found, command)))
    return "\n\n".join(parts)


def _table(all_tried: list[Tried]) -> str:
    rows = [["", "sites", "executions", "runs", "holds", "effective", "results"]]
    for tried in all_tried:
        different = tried.different
        result = f"differ with seed {different.seed}" if different else "agree"
        executions = sum(site.count for site in tried.sites)
        counts = (len(tried.sites), executions, len(tried.runs), tried.holds, tried.effective)
        rows.append([tried.kind, *(f"{count:,}" for count in counts), result if tried.runs else ""])
    return words.table(rows, left=(0, 6))


def _verdict(found: Found, command: list[str]) -> list[str]:
    if found.outcome is Outcome.RACE:
        return [
            f"{words.count(len(found.races), 'race')} found: {words.count(found.unshaken, 'run')} "
            "without holds agree, as long as cudaFree hides it.",
            f"What to do: {document('shake')}.",
        ]
    if found.outcome is Outcome.NONE:
        lines = [f"No verdict: {found.why_none()}."]
        if found.unstable:
            lines.append(
                "Say what is noise with --ignore REGEX. Whether the pool by itself changes results: "
                f"{own_command()} trial -- {shlex.join(command)}"
            )
        elif not found.reached:
            lines.append(f"Why: {own_command()} doctor -- {shlex.join(command)}")
        else:
            if any(one.sites for one in found.tried):
                lines.append(f"{evidence.of(found.tried)}.")
            lines.append(f"What that can mean: {document('shake')}.")
        return lines
    runs = sum(len(one.runs) for one in found.tried)
    return [
        f"No race found: {words.count(runs, 'shaken run')} and "
        f"{words.count(found.unshaken, 'unshaken run')} agree.",
        f"{evidence.of(found.tried)}.",
        f"{evidence.NO_PROOF} What it cannot find: {document('shake')}.",
    ]


def _race(number: int, race: Race, symbols) -> str:
    lines = [f"Race {number} ({race.kind}), seed {race.seed}: {race.different}."]
    if not race.sites:
        lines.append(
            f"  It differs without any hold, too, as soon as {_given_up(race.kind)}: no place can be "
            "named."
        )
        return "\n".join(lines)
    for i, site in enumerate(race.sites[:SITES]):
        lines += ([""] if i else []) + _site(site, symbols)
    left_out = len(race.sites) - SITES
    if left_out > 0:
        lines.append(f"  … {words.count(left_out, 'more site')} (--json has all)")
    what = "this site" if len(race.sites) == 1 else f"these {len(race.sites)} sites"
    if race.complete:
        alone = "alone" if len(race.sites) == 1 else "together, and no fewer,"
        lines.append(
            f"  With holds at {what} {alone} results differed in {race.again} of "
            f"{words.count(race.tries, 'run')}, without holds in none."
        )
        if race.others:
            lines.append(
                f"  {words.count(race.others, 'other site')} of the same call, or of the same work before "
                "that free."
            )
    elif len(race.sites) == 1:
        lines.append("  Whether it comes without a hold, too, is not known.")
    else:
        lines.append(f"  It is among {what}: not narrowed down further.")
    return "\n".join(lines)


def _given_up(kind: str) -> str:
    return "work is not ordered" if kind == "order" else "cudaFree does not wait for the host"


def _site(site: Site, symbols) -> list[str]:
    """Who got ahead of whom."""
    earlier = f"{_on(site.earlier_call, site.earlier_stream)}, thread {site.thread}"
    freed = f"cudaFree of {words.size(site.free_bytes)}, thread {site.free_thread}"
    rows = _call("  earlier", earlier, site.earlier_where, symbols)
    rows += _call("  free", freed, site.free_where, symbols)
    if site.later_call != UNKNOWN:
        later = _on(site.later_call, site.later_stream)
        rows += _call("  later", later, site.later_where, symbols)
    lines = words.table(rows, left=(0, 1, 2)).split("\n")
    if site.kind == "order":
        lines.append(
            "  Nothing but the free puts the later work after the earlier, or what follows that on "
            "its stream up to the free: record an event behind it, and let the later's stream wait "
            "for that."
        )
    else:
        lines.append(
            "  Nothing but the free makes the host wait for the earlier work, or what follows it on "
            "its stream up to the free: synchronise with the stream, or an event behind that, before "
            "the host looks at what it leaves."
        )
    return lines


def _on(call: str, stream: str) -> str:
    if stream == UNKNOWN:
        return call
    return f"{call} on " + (f"stream {stream}" if stream.isdigit() else f"the {stream} stream")


def _call(who: str, call: str, where: str, symbols) -> list[list[str]]:
    """A row for each function on the way to the call, as far as it is known."""
    frames = symbols.frames(where if where != UNKNOWN else "")
    places = [f"{frame} ({function})" if function else frame for frame, function in frames] or [""]
    return [[who, call, places[0]], *(["", "", f"from {place}"] for place in places[1:FRAMES])]
