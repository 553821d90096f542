"""One self-contained page of a report, with plots."""

from __future__ import annotations

import html

from cmp_preload.console import words
from cmp_preload.records import counters
from cmp_preload.records.calls import OUTCOME_WORDS
from cmp_preload.records.collection import Collection
from cmp_preload.records.timeline import STEPS, Timeline
from cmp_preload.reporters import process_tables, trace_tables
from cmp_preload.reporters.files import write_private
from cmp_preload.reporters.plots import Plots, figure_class

BEGINNING = "<!DOCTYPE html><!-- cmp-preload report -->"

STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; padding: 1rem; max-width: 90rem; background: #fff; color: #222;
       font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.figures { columns: 24rem; column-gap: 1rem; }
figure { break-inside: avoid; margin: 0 0 1rem; border: 1px solid #ddd;
         border-radius: 6px; padding: .5rem; }
img { display: block; width: 100%; height: auto; max-width: 40rem; margin: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .7rem; text-align: right; white-space: nowrap;
         border-bottom: 1px solid #eee; }
th:first-child, td:first-child, .last td:last-child, .last th:last-child { text-align: left; }
"""

SOURCES = (
    ("thread_cache_hits", "thread cache", "#2a9d8f"),
    ("global_pool_hits", "global pool", "#8ab17d"),
    ("refills", "refill (real call)", "#e9c46a"),
    ("real", "real call", "#e76f51"),
)


def _plot_tiers(plots: Plots, all_tiers: list[dict]) -> None:
    tiers = sorted(
        sorted(all_tiers, key=lambda t: -t["requests"])[: process_tables.MANY],
        key=lambda t: t["bytes"],
    )
    if not tiers:
        return
    sizes = [words.size(tier["bytes"]) for tier in tiers]
    plots.bars(
        "Allocations by block size: what served them",
        sizes,
        [(name, colour, [tier[key] for tier in tiers]) for key, name, colour in SOURCES],
        "allocations",
    )
    scale = 1 << 20
    plots.bars(
        "Bytes by block size",
        sizes,
        [
            ("asked for", "#457b9d", [t["requested_bytes"] / scale for t in tiers]),
            (
                "rounded up",
                "#e63946",
                [max(0, t["block_bytes"] - t["requested_bytes"]) / scale for t in tiers],
            ),
        ],
        "MiB, all allocations together",
    )


def _trace_plots(whole: Timeline) -> list[str]:
    plots = Plots()
    seconds = whole.step_ns / 1e9
    unit, scale = ("s", 1) if seconds * STEPS >= 1 else ("ms", 1e3)
    x = [i * seconds * scale for i in range(STEPS + 1)]

    def over_time(values: list[int], divisor: float) -> list[float]:
        return [value / divisor for value in (*values, values[-1])]

    plots.areas(
        "Memory over time: the most in each moment",
        x,
        [
            ("as blocks", "#a8dadc", over_time(whole.blocks, 1 << 20)),
            ("asked for", "#457b9d", over_time(whole.live, 1 << 20)),
        ],
        (unit, "MiB"),
    )
    plots.areas(
        "Calls over time",
        x,
        [
            ("allocations and frees", "#2a9d8f", over_time(whole.calls, 1)),
            ("real calls", "#e76f51", over_time(whole.real_calls, 1)),
        ],
        (unit, f"calls in {words.seconds(seconds)}"),
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
    busiest = sorted(processes, key=lambda p: -p["totals"]["requests"])[: process_tables.MANY]
    names = [words.shorten(process_tables.name_of(one), 28) for one in busiest]

    def milliseconds(name: str) -> list[float]:
        return [one["process"][name] / 1e6 for one in busiest]

    plots.bars(
        "Time in allocation, threads together",
        names,
        [
            ("real allocations", "#e9c46a", milliseconds("real_malloc_ns")),
            ("real frees", "#e76f51", milliseconds("real_free_ns")),
            ("waiting for the GPU", "#6d597a", milliseconds("wait_ns")),
        ],
        "milliseconds",
    )
    plots.bars(
        "Peak memory",
        names,
        [
            (
                "program",
                "#457b9d",
                [one["process"]["live_peak_bytes"] / (1 << 20) for one in busiest],
            ),
            (
                "more, held by the pool",
                "#a8dadc",
                [
                    max(
                        0, one["process"]["reserved_peak_bytes"] - one["process"]["live_peak_bytes"]
                    )
                    / (1 << 20)
                    for one in busiest
                ],
            ),
        ],
        "MiB",
    )
    reasons = counters.wait_reasons(together["process"])
    if reasons:
        plots.bars(
            "Why frees waited",
            [name.replace("_", " ") for name in reasons],
            [("frees", "#6d597a", [float(v) for v in reasons.values()])],
            "frees",
        )
    return plots.figures


def _table(rows: list[list[str]], last_is_text: bool) -> str:
    def line(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return (
        f'<div class="scroll"><table{" class=last" if last_is_text else ""}>'
        + line(rows[0], "th")
        + "".join(line(row, "td") for row in rows[1:])
        + "</table></div>"
    )


def write(path: str, found: Collection) -> None:
    """Failure with one line if it cannot."""
    figure_class()
    parts = []
    processes, whole = found.processes, found.timeline
    if processes:
        together = found.together
        parts.append(f'<div class="figures">{"".join(_plots(processes, together))}</div>')
        parts.append(
            "<h2>Processes</h2>" + _table(process_tables.process_rows(processes, together), True)
        )
        parts.append(
            "<h2>Block sizes</h2>" + _table(process_tables.tier_rows(together["tiers"]), False)
        )
        parts += [f"<p>{html.escape(note)}</p>" for note in process_tables.notes(together)]
    parts += [f"<p>{html.escape(remark)}</p>" for remark in process_tables.remarks(found)]
    if whole is not None:
        parts.append(
            "<h2>Traces</h2>"
            + (
                f'<div class="figures">{"".join(_trace_plots(whole))}</div>'
                if whole.threads
                else ""
            )
            + _table(trace_tables.trace_rows(found.traces, whole), False)
        )
        for title, rows in (
            ("Memory over time", trace_tables.time_rows(whole)),
            ("Block sizes", process_tables.tier_rows(whole.used_tiers())),
            ("Calls", trace_tables.outcome_rows(whole)),
        ):
            parts.append(f"<h2>{title}</h2>" + _table(rows, False))
        parts += [f"<p>{html.escape(note)}</p>" for note in trace_tables.notes(found.traces)]
    programs = {one["program"] for one in processes}
    programs |= {one.recorded.program for one in found.traces} - {""}
    of = f" of {', '.join(sorted(programs))}" if programs else ""
    counted = [words.count(len(processes), "process")] if processes else []
    counted += [words.count(len(found.traces), "trace")] if found.traces else []
    title = html.escape(f"cmp: {' and '.join(counted)}{of}")
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
