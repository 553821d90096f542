"""Numbers and tables as people read them."""

from __future__ import annotations

from collections.abc import Iterable


def seconds(value: float) -> str:
    """Four digits, in the unit that fits."""
    for unit, scale in (("s", 1), ("ms", 1e3)):
        if value * scale >= 0.9995:
            break
    else:
        unit, scale = "µs", 1e6
    scaled = value * scale
    return f"{scaled:.{3 if scaled < 10 else 2 if scaled < 100 else 1}f} {unit}"


def size(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value /= 1024
    else:
        unit = "TiB"
    return f"{value:.4g} {unit}"


def floor_percent(ratio: float) -> str:
    """100% only if it is all."""
    return f"{int(1000 * ratio) / 10}%"


def share(part: float, whole: float) -> str:
    percent = 100 * part / whole if whole else 0
    return (
        f"{percent:.1f}%" if percent < 9.95 or percent > 99 and percent < 100 else f"{percent:.0f}%"
    )


def meant(word: str, right: Iterable[str], least: float = 0.6) -> str | None:
    """The one of `right` that is most like a word that is none of them, if one is."""
    import difflib  # seldom needed, and slow to load

    return next(iter(difflib.get_close_matches(word, right, 1, least)), None)


def count(value: int, noun: str) -> str:
    return f"{value:,} {noun}" + ("" if value == 1 else "es" if noun.endswith("s") else "s")


def shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def table(rows: list[list[str]], left: tuple[int, ...] = (0,)) -> str:
    """Rows under the first one, columns aligned to the right but those of `left`."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    lines = []
    for row in rows:
        cells = (
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
