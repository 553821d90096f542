"""One self-contained page of a report, with plots; for wide screens and for telephones."""

from __future__ import annotations

import html

from cmp_preload.console import words
from cmp_preload.records import counters, rounding
from cmp_preload.records.calls import OUTCOME_WORDS
from cmp_preload.records.collection import Collection
from cmp_preload.records.timeline import STEPS, Timeline
from cmp_preload.reporters import advice, process_tables, trace_tables
from cmp_preload.reporters.files import write_private
from cmp_preload.reporters.plots import Plots

BEGINNING = "<!DOCTYPE html><!-- cmp-preload report -->"

# A table that is wider than the screen scrolls by itself: a bar that is always there and a shadow
# at the edge show that there is more, and its first column stays unless it takes most of the screen.
STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; padding: 1rem; max-width: 90rem; background: #fff; color: #222;
       font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.headline { font-size: 1.1rem; padding: .6rem 1rem; border-left: 4px solid #2a9d8f;
            background: #f1f8f7; }
.findings li { margin-bottom: .5rem; } .do { font-weight: 600; }
.figures { columns: 22rem; column-gap: 1rem; margin-top: 1.5rem; }
figure { break-inside: avoid; margin: 0 0 1rem; border: 1px solid #ddd;
         border-radius: 6px; padding: .5rem; }
svg { display: block; width: 100%; height: auto; max-width: 34rem; margin: auto;
      fill: #222; font-family: system-ui, sans-serif; }
svg text { paint-order: stroke; stroke: #fff; stroke-width: 3px; stroke-linejoin: round; }
.scroll { overflow-x: auto; max-width: 100%; padding-bottom: 2px;
  background: linear-gradient(to left, #fff 30%, transparent) right / 3rem 100% no-repeat local,
    linear-gradient(to left, rgba(0, 0, 0, .25), transparent) right / 1rem 100% no-repeat scroll; }
.scroll:focus { outline: 2px solid #457b9d; }
.scroll::-webkit-scrollbar { height: 10px; background: #eee; }
.scroll::-webkit-scrollbar-thumb { background: #999; border-radius: 5px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .7rem; text-align: right; white-space: nowrap; overflow-wrap: normal;
         border-bottom: 1px solid #eee; }
.stay th:first-child, .stay td:first-child { position: sticky; left: 0; background: #fff; }
th:first-child, td:first-child, .left td, .left th,
.last td:last-child, .last th:last-child { text-align: left; }
.facts td { white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
.facts td:first-child { white-space: nowrap; }
.note { color: #555; }
"""

SOURCES = (
    ("thread_cache_hits", "thread cache", "#2a9d8f"),
    ("global_pool_hits", "global pool", "#8ab17d"),
    ("refills", "refill (real call)", "#e9c46a"),
    ("real", "real call", "#e76f51"),
)
SIZES = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
PASSED = (("seconds", 1e9), ("milliseconds", 1e6), ("microseconds", 1e3))
WAITS = {
    **advice.REASONS,
    "bound": "the memory limit was reached",
    "unknown": "work from before the pool",
}
MOST_STAYS = 20  # letters of a first column: half of a narrow screen
TIMES = (("hours", 1 / 3600), ("minutes", 1 / 60), ("seconds", 1), ("milliseconds", 1e3))


def _unit(units, values: list[list[float]]) -> tuple[str, float]:
    """The unit in which the largest sum of a bar, or the largest value, is no small number."""
    most = max((sum(column) for column in zip(*values)), default=0)
    return next((one for one in units if most >= 4 * one[1]), units[-1])


def _parts(units, parts: list[tuple[str, str, list[float]]]) -> tuple[list, str]:
    """The parts of a plot, and the unit that they are in then."""
    unit, scale = _unit(units, [values for _, _, values in parts])
    return [(name, colour, [v / scale for v in values]) for name, colour, values in parts], unit


def _of(shown: int, there: int, most: str) -> str:
    """Behind the title of a plot that has no room for all."""
    return f", {shown} of {there}: those with most {most}" if shown < there else ""


def _most(tiers: list[dict], weight) -> list[dict]:
    """The tiers that a plot has room for, smallest first."""
    chosen = sorted(tiers, key=lambda tier: -weight(tier))[: process_tables.MANY]
    return sorted(chosen, key=lambda tier: tier["bytes"])


def _plot_tiers(plots: Plots, all_tiers: list[dict]) -> None:
    if not all_tiers:
        return
    tiers = _most(all_tiers, lambda tier: tier["requests"])
    plots.bars(
        "Allocations by block size: what served them"
        + _of(len(tiers), len(all_tiers), "allocations"),
        [words.size(tier["bytes"]) for tier in tiers],
        [(name, colour, [tier[key] for tier in tiers]) for key, name, colour in SOURCES],
        "allocations",
    )
    tiers = _most(all_tiers, lambda tier: rounding.of_tier(tier).taken)
    of_each = [rounding.of_tier(tier) for tier in tiers]
    parts, unit = _parts(
        SIZES,
        [
            ("asked for", "#457b9d", [each.asked for each in of_each]),
            ("the driver's rounding", "#adb5bd", [each.by_driver for each in of_each]),
            ("the pool's rounding", "#e63946", [each.by_pool for each in of_each]),
        ],
    )
    plots.bars(
        "Bytes by block size" + _of(len(tiers), len(all_tiers), "bytes"),
        [words.size(tier["bytes"]) for tier in tiers],
        parts,
        f"{unit}, all allocations together",
    )


def _trace_plots(whole: Timeline) -> list[str]:
    plots = Plots()
    seconds = whole.step_ns / 1e9
    unit, scale = next(
        ((unit, scale) for unit, scale in TIMES if seconds * STEPS * scale >= 3), TIMES[-1]
    )
    x = [i * seconds * scale for i in range(STEPS + 1)]

    def over_time(values: list[int], divisor: float = 1) -> list[float]:
        return [value / divisor for value in (*values, values[-1])]

    begin = f"{unit} from the beginning"
    size, bytes_of_it = _unit(SIZES, [whole.blocks, whole.live])
    plots.areas(
        "Memory over time: the most in each moment",
        x,
        [
            ("as blocks", "#a8dadc", over_time(whole.blocks, bytes_of_it)),
            ("asked for", "#457b9d", over_time(whole.live, bytes_of_it)),
        ],
        (begin, size),
    )
    plots.areas(
        "Calls over time",
        x,
        [
            ("allocations and frees", "#2a9d8f", over_time(whole.calls)),
            ("real calls", "#e76f51", over_time(whole.real_calls)),
        ],
        (begin, f"calls in {words.seconds(seconds)}"),
    )
    rows = {name: row for name, row in whole.outcomes().items() if row["max_ns"]}
    if rows:
        plots.points(
            "How long calls took",
            [OUTCOME_WORDS[name] for name in rows],
            [
                (name, colour, [max(row[key], 1) / 1e3 for row in rows.values()])
                for key, name, colour in (
                    ("p50_ns", "half of them less", "#2a9d8f"),
                    ("p99_ns", "99% less", "#e9c46a"),
                    ("max_ns", "the longest", "#e76f51"),
                )
            ],
            "µs",
        )
    _plot_tiers(plots, whole.used_tiers())
    return plots.figures


def _plots(processes: list[dict], together: dict) -> list[str]:
    plots = Plots()
    _plot_tiers(plots, together["tiers"])

    def plot(title: str, most: str, units, weight, parts) -> None:
        shown = process_tables.with_most(processes, lambda one: weight(one["process"]))
        names = [process_tables.label_of(one, processes) for one in shown]
        values = [
            (name, colour, [value(one["process"]) for one in shown])
            for name, colour, value in parts
        ]
        values, unit = _parts(units, values)
        plots.bars(title + _of(len(shown), len(processes), most), names, values, unit)

    plot(
        "Time in allocation, threads together",
        "of it",
        PASSED,
        counters.allocation_ns,
        [
            ("real allocations", "#e9c46a", lambda of: of["real_malloc_ns"]),
            ("real frees", "#e76f51", lambda of: of["real_free_ns"]),
            ("waiting for the GPU", "#6d597a", lambda of: of["wait_ns"]),
        ],
    )
    plot(
        "Peak memory",
        "of it",
        SIZES,
        lambda of: of["reserved_peak_bytes"],
        [
            ("program", "#457b9d", lambda of: of["live_peak_bytes"]),
            (
                "more, held by the pool",
                "#a8dadc",
                lambda of: max(0, of["reserved_peak_bytes"] - of["live_peak_bytes"]),
            ),
        ],
    )
    reasons = counters.wait_reasons(together["process"])
    if reasons:
        plots.bars(
            "Why frees waited",
            [WAITS.get(name, name.replace("_", " ")) for name in reasons],
            [("frees", "#6d597a", [float(v) for v in reasons.values()])],
            "frees",
        )
    return plots.figures


def _line(cells: list[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _table(title: str, rows: list[list[str]], kind: str = "") -> str:
    head = html.escape(title)
    if max(len(row[0]) for row in rows) <= MOST_STAYS:
        kind = f"{kind} stay".strip()
    return (
        f'<h2>{head}</h2><div class="scroll" tabindex="0" role="region" aria-label="{head}">'
        f'<table class="{kind}">'
        + _line(rows[0], "th")
        + "".join(_line(row, "td") for row in rows[1:])
        + "</table></div>"
    )


def _facts(rows: list[list[str]]) -> str:
    lines = "".join(_line(row, "td") for row in rows)
    return f'<h2>The run</h2><table class="left facts">{lines}</table>'


def _paragraphs(lines: list[str]) -> str:
    return "".join(f'<p class="note">{html.escape(line)}</p>' for line in lines)


def _figures(figures: list[str]) -> str:
    return f'<div class="figures">{"".join(figures)}</div>'


def _findings(found: list[advice.Finding]) -> str:
    def item(one: advice.Finding) -> str:
        to_do = f'<br><span class="do">→ {html.escape(one.to_do)}</span>' if one.to_do else ""
        return f"<li>{html.escape(one.what)}{to_do}</li>"

    return f'<ul class="findings">{"".join(map(item, found))}</ul>' if found else ""


def _of_processes(found: Collection) -> str:
    processes, together = found.processes, found.together
    result = _figures(_plots(processes, together))
    result += _table("Processes", process_tables.process_rows(processes, together), "last")
    result += _table("Memory", process_tables.memory_rows(processes, together))
    result += _paragraphs(
        [
            "What the pool holds is what the program has, and idle memory. At end: when the process "
            "ended, or was seen last. Peaks of several are added up."
        ]
    )
    devices = process_tables.device_rows(processes)
    if len(devices) > 1:
        result += _table("Devices", devices)
    if together["tiers"]:
        result += _table("Block sizes", process_tables.tier_rows(together["tiers"]))
        result += _paragraphs([ROUNDING])
    return result + _paragraphs(process_tables.notes(together))


ROUNDING = (
    "The driver rounds up by itself, to 512 bytes, from 2 MiB up to 2 MiB; what the pool adds to that "
    "is its own. Of statistics, which keep sums, by the mean of a row; of a trace by each size."
)


def _of_traces(found: Collection) -> str:
    whole = found.timeline
    result = "<h2>Traces</h2>" if found.processes else ""
    if any(whole.calls):
        result += _figures(_trace_plots(whole))
    tables = [("Recorded", trace_tables.trace_rows(found.traces, whole))]
    if any(whole.calls):
        tables.append(("Memory over time", trace_tables.time_rows(whole)))
        if whole.used_tiers():
            tables.append(("Block sizes", process_tables.tier_rows(whole.used_tiers())))
    if any(whole.calls) or whole.page_locked:
        tables.append(("Calls", trace_tables.outcome_rows(whole)))
    result += "".join(_table(title, rows) for title, rows in tables)
    return result + (_paragraphs([ROUNDING]) if whole.used_tiers() else "")


def _title(found: Collection) -> str:
    programs = {one["program"] for one in found.everyone}
    programs |= {one.recorded.program for one in found.traces} - {""}
    of = f" of {', '.join(sorted(programs))}" if programs else ""
    counted = [words.count(len(found.everyone), "process")] if found.everyone else []
    counted += [words.count(len(found.traces), "trace")] if found.traces else []
    return f"cmp: {' and '.join(counted)}{of}"


def write(path: str, found: Collection, everything: bool) -> None:
    """Failure with one line if it cannot."""
    parts = [f'<p class="headline">{html.escape(advice.headline(found))}</p>']
    parts.append(_findings(advice.findings(found)))
    facts = trace_tables.run_rows(found, everything)
    if facts:
        parts.append(_facts(facts))
    if found.processes:
        parts.append(_of_processes(found))
    if found.timeline is not None:
        parts.append(_of_traces(found))
    title = html.escape(_title(found))
    write_private(
        path,
        BEGINNING,
        f"""{BEGINNING}
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{STYLE}</style></head>
<body><h1>{title}</h1>
{"".join(parts)}
</body></html>
""",
    )
