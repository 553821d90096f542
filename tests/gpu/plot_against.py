"""Draws what compare_all.py found, nanoseconds of an allocation and its free over size and over threads.

  plot_against.py FILE.json [PICTURE.svg]       needs matplotlib; default: beside the file

The median of the repetitions; for the pool also the least and the most.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys

# Shown, in the order of the legend: what it is called there, colour, marker. (Colours that differ for
# those who see few, too.)
SHOWN = {
    "cmp": ("the pool, preloaded", "#0072b2", "o"),
    "real": ("real calls", "#000000", "s"),
    "async-max": ("cudaMallocAsync, keeping", "#d55e00", "^"),
    "cub": ("CUB", "#e69f00", "v"),
    "torch": ("PyTorch's", "#cc79a7", "D"),
    "rmm-pool": ("RMM's pool", "#009e73", "P"),
    "rmm-arena": ("RMM's arena", "#56b4e9", "X"),
    "jemalloc": ("jemalloc, of the host", "#999999", "."),
}
UNITS = {"B": 0, "KiB": 10, "MiB": 20, "GiB": 30}
ROW = re.compile(r"(\d+) (B|KiB|MiB|GiB), (\d+) threads?, idle")


def pairs(found: dict) -> list[tuple[int, int, dict]]:
    """Of the idle rows: bytes, threads, and the figures of each alternative."""
    rows = []
    for row in found["rows"]:
        if row["part"] == "pairs" and (words := ROW.fullmatch(row["row"])):
            rows.append((int(words[1]) << UNITS[words[2]], int(words[3]), row["cells"]))
    return rows


def draw(axes, points: list[tuple[int, dict]], title: str, label: str) -> None:
    for name, (words, colour, marker) in SHOWN.items():
        there = [(x, cells[name]) for x, cells in points if "ns" in cells.get(name, {})]
        xs = [x for x, _ in there]
        axes.plot(xs, [cell["ns"] for _, cell in there], color=colour, marker=marker, markersize=5,
                  linewidth=2.5 if name == "cmp" else 1.3, label=words)
        if name == "cmp":
            axes.fill_between(xs, [cell["least_ns"] for _, cell in there],
                              [cell["most_ns"] for _, cell in there], color=colour, alpha=0.2)
    axes.set(xscale="log", yscale="log", title=title, xlabel=label, ylabel="ns a pair")
    axes.set_xticks([x for x, _ in points], labels=[in_words(x) if "size" in label else f"{x}"
                                                    for x, _ in points])
    axes.minorticks_off()
    axes.grid(alpha=0.3)


def in_words(count: int) -> str:
    unit = max((name for name in UNITS if count >= 1 << UNITS[name]), key=UNITS.get)
    return f"{count >> UNITS[unit]}{unit[0]}"


def main() -> int:
    if len(sys.argv) not in (2, 3) or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        import matplotlib  # pylint: disable=import-outside-toplevel
    except ImportError:
        sys.exit("plot_against: matplotlib is missing: pip install matplotlib")
    matplotlib.use("svg")
    from matplotlib import pyplot  # pylint: disable=import-outside-toplevel

    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "cmp", "font.size": 9})
    path = pathlib.Path(sys.argv[1])
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = pairs(found)
    figure, (sizes, threads) = pyplot.subplots(1, 2, figsize=(10, 4.2), sharey=True)
    draw(sizes, [(count, cells) for count, each, cells in rows if each == 1],
         "one thread", "size of the block in bytes")
    draw(threads, [(each, cells) for count, each, cells in rows if count == 4 << 10],
         "4 KiB, several threads", "threads")
    figure.legend(*sizes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    machine = found["machine"]
    figure.suptitle(f"An allocation and its free, idle: {machine['device']}, driver {machine['driver']}, "
                    f"{found['date'][:10]}, commit {found['commit']}")
    figure.set_layout_engine("constrained")
    target = pathlib.Path(sys.argv[2]) if len(sys.argv) == 3 else path.with_suffix(".svg")
    figure.savefig(target, metadata={"Date": None, "Creator": None})
    return 0


if __name__ == "__main__":
    sys.exit(main())
