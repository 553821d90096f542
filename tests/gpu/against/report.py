"""What compare_all.py says of its figures: where and when, how noisy, as a table."""

from __future__ import annotations

import subprocess

import programs

NOISY = 1.5  # a figure whose repetitions differ by more


def answer(*command: str) -> str:
    """The first line of what it prints, or "unknown"."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return (done.stdout.splitlines() or ["unknown"])[0].strip()


def commit() -> str:
    return answer("git", "-C", str(programs.HERE), "describe", "--always", "--dirty")


def driver(simulated: bool) -> dict:
    """What only nvidia-smi says."""
    return {"driver": "simulated" if simulated else
            answer("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")}


def noise(found: list[dict], machine: dict) -> dict:
    cells = [cell for row in found for cell in row["cells"].values()
             if len(cell.get("runs", ())) > 1]
    noisy = sum(cell["noisy"] for cell in cells)
    too_noisy = noisy * 5 > len(cells)
    words = (f"{noisy} of {len(cells)} figures differ by more than {NOISY} times between their "
             "repetitions (marked ~)")
    if too_noisy:
        words += ": the machine was TOO NOISY for more than orders of magnitude"
    if machine.get("load_before", 0) > machine.get("cores", 1) / 2:
        words += f"; its load was {machine['load_before']:.1f} before it began"
    return {"figures": len(cells), "noisy": noisy, "too_noisy": too_noisy, "words": words}


def time_in_words(ns: float) -> str:
    for unit, name in ((1e6, "ms"), (1e3, "µs")):
        if ns >= unit:
            return f"{ns / unit:.3g} {name}"
    return f"{ns:.0f} ns"


def cell_in_words(cell: dict) -> str:
    if "missing" in cell:
        return "-"
    words = ("~" if cell["noisy"] else "") + time_in_words(cell["ns"])
    if "alone_ns" in cell:
        words += f" (alone {time_in_words(cell['alone_ns'])})"
    if "worst_ns" in cell:
        words += f" (worst {time_in_words(cell['worst_ns'])})"
    if "ratio" in cell:
        words += f", {cell['ratio']:.3g}x" if cell["ratio"] < 1000 else f", {cell['ratio']:,.0f}x"
    return words


def table(outcome: dict) -> list[str]:
    """As Markdown."""
    machine = outcome["machine"]
    lines = [f"# The pool ({outcome['base']}) and others", "",
             f"{machine.get('device', 'no device')}, driver {machine['driver']}, CUDA "
             f"{machine.get('cuda_driver', '?')}, runtime {machine.get('cuda_runtime', '?')}, "
             f"{machine.get('cores', '?')} cores, {outcome['date']}, commit {outcome['commit']}, "
             f"`{outcome['command']}`, {outcome['seconds']:.0f} s"
             f"{'' if outcome['complete'] else ', NOT COMPLETE'}.",
             f"Medians of {outcome['repetitions']} repetitions at most; x: times the pool's. "
             f"{outcome['noise']['words']}.", "", "| alternative | what it is | |", "|---|---|---|"]
    present = []
    for name, one in outcome["alternatives"].items():
        lines.append(f"| {name} | {one['what']} | {one['missing'] or ''} |")
        if any("ns" in row["cells"][name] for row in outcome["rows"]):
            present.append(name)
    lines += ["", *(f"- Not there: {note}." for note in outcome["notes"]),
              *(f"- {name} said: {words}" for name, words in outcome["said"].items())]
    for part, what in outcome["parts"].items():
        lines += ["", f"## {part}: {what}", "", f"| | {' | '.join(present)} |",
                  "|---" * (len(present) + 1) + "|"]
        failed = []
        for row in outcome["rows"]:
            if row["part"] != part:
                continue
            cells = [row["cells"][name] for name in present]
            lines.append(f"| {row['row']} | {' | '.join(map(cell_in_words, cells))} |")
            failed += [f"{row['row']}, {name}: {why}" for name, cell in zip(present, cells)
                       if (why := cell.get("missing") or cell.get("failed"))]
        lines += ["", *(f"- {line}" for line in failed)]
    return lines
