"""One self-contained page of a report, with plots."""

from __future__ import annotations

import base64
import html
import io

from cmp_preload import report, statistics, text
from cmp_preload.cli import Failure
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
        axes.tick_params(labelsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        named = len(parts) > 1 and any(left)
        axes.set_title(title, fontsize=10, loc="left", pad=24 if named else 8)
        if named:  # between title and bars, where it covers nothing
            axes.legend(
                fontsize=8,
                frameon=False,
                ncol=len(parts),
                loc="lower left",
                bbox_to_anchor=(0, 1),
                borderaxespad=0.2,
                handlelength=1.2,
                columnspacing=1.2,
            )
        data = io.BytesIO()
        figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
        encoded = base64.b64encode(data.getvalue()).decode()
        self.figures.append(
            f'<figure><img alt="{html.escape(title)}" '
            f'src="data:image/svg+xml;base64,{encoded}"></figure>'
        )


def _plots(processes: list[dict], together: dict) -> list[str]:
    plots = _Plots()
    tiers = sorted(
        sorted(together["tiers"], key=lambda t: -t["requests"])[: report.MANY],
        key=lambda t: t["bytes"],
    )
    sizes = [text.size(tier["bytes"]) for tier in tiers]
    if tiers:
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
    busiest = sorted(processes, key=lambda p: -p["totals"]["requests"])[: report.MANY]
    names = [text.shorten(report.name_of(one), 28) for one in busiest]

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


def write_page(path: str, processes: list[dict], together: dict, unreached: list[dict]) -> None:
    """Failure with one line if it cannot."""
    parts = []
    if processes:
        parts.append(f'<div class="figures">{"".join(_plots(processes, together))}</div>')
        parts.append("<h2>Processes</h2>" + _table(report.process_rows(processes, together), True))
        parts.append("<h2>Block sizes</h2>" + _table(report.tier_rows(together["tiers"]), False))
        parts += [f"<p>{html.escape(note)}</p>" for note in report.notes(together)]
    else:
        _figure_class()
    for one in unreached:
        parts.append(
            f"<p>{html.escape(one['program'])} {one['pid']} used CUDA, but the pool served "
            f"nothing: {html.escape(one['reason'])}</p>"
        )
    title = text.count(len(processes), "process")
    programs = ", ".join(sorted({one["program"] for one in processes}))
    write_private(
        path,
        BEGINNING,
        f"""{BEGINNING}
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>cmp: {html.escape(programs)}</title><style>{STYLE}</style></head>
<body><h1>cmp: {title} of {html.escape(programs)}</h1>
{"".join(parts)}
</body></html>
""",
    )
