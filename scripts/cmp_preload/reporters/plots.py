"""Plots for a page: bars, areas over time, points; each with its axes named, in their units."""

from __future__ import annotations

import math

from cmp_preload.reporters.drawing import LINE, WIDTH, Drawing, shortened, text_width

GRID = "#ddd"
AXIS = "#888"
BAR = 11
MOST_LABEL = 0.42 * WIDTH  # a longer one goes above its bar
GAP = 8  # between two numbers of an axis, at least

Part = tuple  # name, colour, a value for each label


def _in_words(value: float) -> str:
    return f"{value:,.10g}"


def ticks(most: float, room: float) -> list[float]:
    """Round numbers from 0 to `most`, as many as have room side by side."""
    for wanted in (5, 4, 3, 2):
        step = _round_step(most / wanted)
        found = [i * step for i in range(int(most / step + 1e-9) + 1)]
        widest = max(text_width(_in_words(value)) for value in found)
        if widest + GAP <= room * step / most:
            return found
    return [0.0]


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


class Plots:
    def __init__(self) -> None:
        self.figures: list[str] = []

    def _save(self, drawing: Drawing) -> None:
        self.figures.append(f"<figure>{drawing.svg()}</figure>")

    def bars(self, title: str, labels: list[str], parts: list[Part], unit: str) -> None:
        """Horizontal bars, the first on top; what is on the axis is `unit`. None, if all are 0."""
        shown = [part for part in parts if any(part[2])]
        if not shown:
            return
        drawing = Drawing(title)
        if len(parts) > 1 and shown:
            drawing.legend([(name, colour) for name, colour, _ in shown])
        sums = [sum(values) for values in zip(*(values for _, _, values in parts))]
        most = max(sums)
        top = drawing.y
        places, left = _place_labels(drawing, labels)
        right = WIDTH - 26
        _number_axis(drawing, top, left, right, [(v, v / most) for v in ticks(most, right - left)])
        for i, y in enumerate(places):
            x = left
            for name, colour, values in shown:
                width = (right - left) * values[i] / most
                about = f"{labels[i]}: {_in_words(round(values[i], 3))} {unit}, {name}"
                drawing.rectangle(x, y, width, BAR, colour, about)
                x += width
        _name_axis(drawing, left, right, unit)
        self._save(drawing)

    def areas(self, title: str, x: list[float], parts: list[Part], axes: tuple[str, str]) -> None:
        """Steps over time, the first part behind the others; `axes`: what is on x and y."""
        drawing = Drawing(title)
        drawing.legend([(name, colour) for name, colour, _ in parts])
        drawing.y += LINE - 4
        drawing.text(2, drawing.y, axes[1])
        drawing.y += 8
        most = max(max(values) for _, _, values in parts) or 1.0
        top, height = drawing.y, 150.0
        numbers = ticks(most, height * 3)  # one above the other there is more room
        left = 8 + max(text_width(_in_words(value)) for value in numbers)
        right = WIDTH - 26
        drawing.y = top + height
        for value in numbers:
            y = top + height * (1 - value / most)
            drawing.line(left, y, right, y, GRID, behind=True)
            drawing.text(left - 5, y + 4, _in_words(value), "end")
        for _, colour, values in parts:
            points = [(left, top + height)]
            for i, value in enumerate(values[:-1]):
                y = top + height * (1 - value / most)
                points += [
                    (left + (right - left) * end / x[-1], y) for end in (x[i], x[i + 1])
                ]
            drawing.area([*points, (right, top + height)], colour)
        _number_axis(
            drawing, top, left, right, [(v, v / x[-1]) for v in ticks(x[-1], right - left)], False
        )
        _name_axis(drawing, left, right, axes[0])
        self._save(drawing)

    def points(self, title: str, labels: list[str], parts: list[Part], unit: str) -> None:
        """Some points for each label, on a logarithmic axis; values are more than 0."""
        drawing = Drawing(title)
        drawing.legend([(name, colour) for name, colour, _ in parts])
        values = [value for part in parts for value in part[2]]
        low = math.floor(math.log10(min(values)) + 1e-9)
        high = max(low + 1, math.ceil(math.log10(max(values)) - 1e-9))
        top = drawing.y
        places, left = _place_labels(drawing, labels)
        left, right = left + 6, WIDTH - 26
        every = 1
        while (right - left) / (high - low) * every < 24 + text_width(_in_words(10.0**high)):
            every += 1
        numbers = [
            (10.0**power, (power - low) / (high - low)) for power in range(low, high + 1, every)
        ]
        _number_axis(drawing, top, left, right, numbers)
        for name, colour, its in parts:
            for i, value in enumerate(its):
                x = left + (right - left) * (math.log10(value) - low) / (high - low)
                about = f"{labels[i]}: {_in_words(round(value, 3))} {unit}, {name}"
                drawing.circle(x, places[i] + BAR / 2, colour, about)
        _name_axis(drawing, left, right, unit)
        self._save(drawing)


def _place_labels(drawing: Drawing, labels: list[str]) -> tuple[list[float], float]:
    """Writes them left of their bars, or above where one is long; where bars are, and where the
    axis begins."""
    widest = max(map(text_width, labels), default=0)
    above = widest > MOST_LABEL
    places = []
    for label in labels:
        if above:
            drawing.y += LINE
            drawing.text(2, drawing.y, shortened(label, WIDTH - 4))
            places.append(drawing.y + 4)
            drawing.y += BAR + 6
        else:
            drawing.text(2 + widest, drawing.y + BAR - 1.5, label, "end")
            places.append(drawing.y)
            drawing.y += LINE + 1
    return places, 8 if above else widest + 10


def _number_axis(
    drawing: Drawing,
    top: float,
    left: float,
    right: float,
    numbers: list[tuple[float, float]],
    grid: bool = True,
) -> None:
    """At drawing.y; `numbers`: value, and where between left (0) and right (1)."""
    for value, place in numbers:
        x = left + (right - left) * place
        if grid:
            drawing.line(x, top, x, drawing.y, GRID, behind=True)
        drawing.line(x, drawing.y, x, drawing.y + 4, AXIS)
        half = text_width(_in_words(value)) / 2
        drawing.text(min(max(x, half), WIDTH - half), drawing.y + LINE, _in_words(value), "middle")
    drawing.line(left, drawing.y, right, drawing.y, AXIS)


def _name_axis(drawing: Drawing, left: float, right: float, name: str) -> None:
    drawing.y += 2 * LINE
    half = text_width(name) / 2
    middle = min(max((left + right) / 2, half + 2), WIDTH - half - 2)
    drawing.text(middle, drawing.y, shortened(name, WIDTH - 4), "middle")
