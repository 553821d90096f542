"""One self-contained page of a report, with plots."""

from __future__ import annotations

import base64
import html
import io

from cmp_preload import report, statistics, timeline, traces
from cmp_preload.console import words
from cmp_preload.console.errors import Failure
from cmp_preload.files import write_private

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


def _figure_class():
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise Failure(
            "--html needs matplotlib, which this Python has not: "
            "python3 -m pip install matplotlib"
        ) from None
    return Figure


class _Plots:
    def __init__(self) -> None:
        self._figure = _figure_class()
        self.figures: list[str] = []

    def bars(
        self, title: str, labels: list[str], parts: list[tuple[str, str, list[float]]], unit: str
    ) -> None:
        """Horizontal bars, the first on top; `parts`: name, colour, a value for each bar."""
        figure = self._figure(figsize=(5.4, 1.5 + 0.24 * len(labels)), layout="constrained")
        axes = figure.subplots()
        places = range(len(labels))
        left = [0.0] * len(labels)
        for name, colour, values in parts:
            if any(values):
                axes.barh(places, values, left=left, color=colour, label=name, height=0.75)
                left = [a + b for a, b in zip(left, values)]
        axes.set_yticks(places, [label.replace("$", r"\$") for label in labels])
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel(unit, fontsize=9)
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        self._finish(axes, title, len(parts) if any(left) else 0)
        self._save(figure, title)

    def areas(
        self, title: str, x: list[float], parts: list[tuple[str, str, list[float]]], labels
    ) -> None:
        """Steps over time, the first part behind the others; `labels`: of x and y."""
        figure = self._figure(figsize=(5.4, 3), layout="constrained")
        axes = figure.subplots()
        for name, colour, values in parts:
            axes.fill_between(x, values, step="post", color=colour, label=name, linewidth=0)
        axes.set_xlim(0, x[-1])
        axes.set_ylim(bottom=0)
        axes.set_xlabel(labels[0], fontsize=9)
        axes.set_ylabel(labels[1], fontsize=9)
        self._finish(axes, title, len(parts))
        self._save(figure, title)

    def points(
        self, title: str, labels: list[str], parts: list[tuple[str, str, list[float]]], unit: str
    ) -> None:
        """Some points for each label, on a logarithmic axis."""
        figure = self._figure(figsize=(5.4, 1.5 + 0.3 * len(labels)), layout="constrained")
        axes = figure.subplots()
        for name, colour, values in parts:
            axes.plot(values, range(len(labels)), "o", color=colour, label=name, markersize=6)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xscale("log")
        axes.set_xlabel(unit, fontsize=9)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axes.grid(axis="x", color="#eee")
        axes.set_axisbelow(True)
        self._finish(axes, title, len(parts))
        self._save(figure, title)

    @staticmethod
    def _finish(axes, title: str, named: int) -> None:
        axes.tick_params(labelsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(title, fontsize=10, loc="left", pad=24 if named > 1 else 8)
        if named > 1:  # between title and plot, where it covers nothing
            axes.legend(
                fontsize=8,
                frameon=False,
                ncol=named,
                loc="lower left",
                bbox_to_anchor=(0, 1),
                borderaxespad=0.2,
                handlelength=1.2,
                columnspacing=1.2,
            )

    def _save(self, figure, title: str) -> None:
        data = io.BytesIO()
        figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
        encoded = base64.b64encode(data.getvalue()).decode()
        self.figures.append(
            f'<figure><img alt="{html.escape(title)}" '
            f'src="data:image/svg+xml;base64,{encoded}"></figure>'
        )


def _plot_tiers(plots: _Plots, all_tiers: list[dict]) -> None:
    tiers = sorted(
        sorted(all_tiers, key=lambda t: -t["requests"])[: report.MANY], key=lambda t: t["bytes"]
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


def _trace_plots(whole: timeline.Timeline) -> list[str]:
    plots = _Plots()
    seconds = whole.step_ns / 1e9
    unit, scale = ("s", 1) if seconds * timeline.STEPS >= 1 else ("ms", 1e3)
    x = [i * seconds * scale for i in range(timeline.STEPS + 1)]

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
            [timeline.OUTCOMES[name] for name in rows],
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
    _plot_tiers(plots, whole.summary()["tiers"])
    return plots.figures


def _plots(processes: list[dict], together: dict) -> list[str]:
    plots = _Plots()
    _plot_tiers(plots, together["tiers"])
    busiest = sorted(processes, key=lambda p: -p["totals"]["requests"])[: report.MANY]
    names = [words.shorten(report.name_of(one), 28) for one in busiest]

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
    reasons = statistics.wait_reasons(together["process"])
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


def write_page(path: str, found: report.Found) -> None:
    """Failure with one line if it cannot."""
    _figure_class()
    parts = []
    processes, whole = found.processes, found.timeline
    if processes:
        together = found.together
        parts.append(f'<div class="figures">{"".join(_plots(processes, together))}</div>')
        parts.append("<h2>Processes</h2>" + _table(report.process_rows(processes, together), True))
        parts.append("<h2>Block sizes</h2>" + _table(report.tier_rows(together["tiers"]), False))
        parts += [f"<p>{html.escape(note)}</p>" for note in report.notes(together)]
    for one in found.unreached:
        parts.append(
            f"<p>{html.escape(one['program'])} {one['pid']} used CUDA, but the pool served "
            f"nothing: {html.escape(one['reason'])}</p>"
        )
    if whole is not None:
        parts.append(
            "<h2>Traces</h2>"
            + (
                f'<div class="figures">{"".join(_trace_plots(whole))}</div>'
                if whole.threads
                else ""
            )
            + _table(traces.trace_rows(found.traces, whole), False)
        )
        for title, rows in (
            ("Memory over time", traces.time_rows(whole)),
            ("Block sizes", report.tier_rows(whole.summary()["tiers"])),
            ("Calls", traces.outcome_rows(whole)),
        ):
            parts.append(f"<h2>{title}</h2>" + _table(rows, False))
        parts += [f"<p>{html.escape(note)}</p>" for note in traces.notes(found.traces)]
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
