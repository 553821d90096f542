"""SVG: lines of text and shapes, with room kept for what is written. Widths of text are estimates, on
the wide side for every usual font, so that what has room here has it in a browser."""

from __future__ import annotations

import html

WIDTH = 340  # of a plot: what a telephone shows without scaling
SIZE = 11  # of text
LINE = 15  # from one line to the next
BOLD = 1.15  # wider
NARROW = set("iIljtfr.,:;'|!()[]/ -–")
WIDE = set("mwMW@%…→—")


def text_width(text: str, size: float = SIZE) -> float:
    def of(letter: str) -> float:
        if letter in NARROW:
            return 0.42
        if letter in WIDE:
            return 1.02
        if ord(letter) > 0x2E7F:
            return 1.05
        return 0.78 if letter.isupper() else 0.66

    return size * sum(map(of, text))


def shortened(text: str, room: float, size: float = SIZE) -> str:
    """As much of a text as has room, from both of its ends: names differ at these."""
    if text_width(text, size) <= room:
        return text
    for kept in range(len(text) - 1, 0, -1):
        cut = text[: kept - kept // 2] + "…" + text[len(text) - kept // 2 :]
        if text_width(cut, size) <= room:
            return cut
    return "…"


def wrapped(text: str, room: float, size: float = SIZE) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, size) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return [shortened(line, room, size) for line in lines]


def number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


class Drawing:
    """Grows downwards: `y` is where the next thing goes."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.y = 4.0
        self._parts: list[str] = []
        for line in wrapped(title, WIDTH - 4, BOLD * (SIZE + 1)):
            self.y += LINE
            self.text(2, self.y, line, size=SIZE + 1, bold=True)
        self.y += 6

    def text(
        self, x: float, y: float, text: str, anchor: str = "start", size: float = SIZE, bold=False
    ) -> None:
        """`y` is that of the base line."""
        weight = ' font-weight="bold"' if bold else ""
        self._parts.append(
            f'<text x="{number(x)}" y="{number(y)}" text-anchor="{anchor}" '
            f'font-size="{number(size)}"{weight}>{html.escape(text)}</text>'
        )

    def rectangle(
        self, x: float, y: float, width: float, height: float, colour: str, about: str = ""
    ) -> None:
        hint = f"<title>{html.escape(about)}</title>" if about else ""
        self._parts.append(
            f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}" '
            f'height="{number(height)}" fill="{colour}">{hint}</rect>'
        )

    def line(
        self, x1: float, y1: float, x2: float, y2: float, colour: str, behind: bool = False
    ) -> None:
        self._parts.insert(
            0 if behind else len(self._parts),
            f'<line x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}" '
            f'stroke="{colour}"/>',
        )

    def circle(self, x: float, y: float, colour: str, about: str) -> None:
        self._parts.append(
            f'<circle cx="{number(x)}" cy="{number(y)}" r="4" fill="{colour}">'
            f"<title>{html.escape(about)}</title></circle>"
        )

    def area(self, points: list[tuple[float, float]], colour: str) -> None:
        path = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        self._parts.append(f'<polygon points="{path}" fill="{colour}"/>')

    def legend(self, names: list[tuple[str, str]]) -> None:
        """Name and colour of each part, in as many lines as they need."""
        x = 2.0
        self.y += LINE
        for name, colour in names:
            width = 16 + text_width(name) + 10
            if x > 2 and x + width > WIDTH:
                x = 2.0
                self.y += LINE
            self.rectangle(x, self.y - 9, 10, 10, colour)
            self.text(x + 15, self.y, shortened(name, WIDTH - 20))
            x += width
        self.y += 8

    def svg(self) -> str:
        height = number(self.y + 4)
        return (
            f'<svg role="img" aria-label="{html.escape(self.title)}" '
            f'viewBox="0 0 {WIDTH} {height}">{"".join(self._parts)}</svg>'
        )
