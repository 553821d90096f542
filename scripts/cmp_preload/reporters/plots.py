"""Plots for a page, as SVG images; drawn with matplotlib."""

from __future__ import annotations

import base64
import html
import io

from cmp_preload.console.errors import Failure


def figure_class():
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise Failure(
            "--html needs matplotlib, which this Python has not: "
            "python3 -m pip install matplotlib"
        ) from None
    return Figure


class Plots:
    def __init__(self) -> None:
        self._figure = figure_class()
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
