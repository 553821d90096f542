"""Programs that nobody here wrote, from wheels, each tried by cmp-preload trial: a table, and JSON.

  CMP_BUILD=FOLDER gallery.py [--commit X] [--only NAME,...] [--limit SECONDS] [--output FILE.json]
  gallery.py --document FILE.json...      puts what these runs found into scripts/docs/with/gallery.md

One that is missing, fails or takes too long is a row that says so. --limit is for all together (300): each
program may take its part of what is left, so the more time, the more rounds, six at most. --simulated: on the
simulated CUDA, with other programs.
"""

import argparse
import contextlib
import datetime
import importlib.util
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import programs

FOLDER = programs.HERE / "gallery"
DOCUMENT = programs.HERE.parents[1] / "scripts" / "docs" / "with" / "gallery.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
LIMIT_S = 300
LEAST_S = 20  # of a program, so that a slow one before it does not take all
COMPILE_S = 120  # a first run that compiles; it is no part of the program's time
MOST_ROUNDS = 6  # more are not needed to say faster
VARIANTS = 3  # without, observed and with
POOLS = 5  # of a program that calls cudaMallocAsync: with other values of CMP_ASYNC_KEEP, too
PAGE_LOCKED = 4  # of one that allocates page-locked memory in a loop: with CMP_HOST, too


class Program(NamedTuple):
    name: str
    package: str  # without it the program is missing
    command: list[str]
    environment: dict[str, str] = {}
    wheels: str = ""  # what pip installs
    compiles: bool = True  # kernels or Python, in its first run, and keeps them on disk
    variants: int = VARIANTS  # that a trial of it runs in each round


class Failed(Exception):
    """Why there are no figures."""


def own(name: str) -> list[str]:
    return ["python3", str(FOLDER / name)]


UNCACHED = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
PROGRAMS = [
    Program("XGBoost, training", "xgboost", own("xgboost_cv.py"), wheels="xgboost", compiles=False),
    Program("XGBoost, predictions", "xgboost", own("xgboost_predict.py"), compiles=False),
    Program("KeOps", "pykeops", own("keops_predict.py"), wheels="pykeops"),
    Program("Warp", "warp", ["python3", "-m", "warp.examples.fem.example_convection_diffusion",
                             "--headless", "--num_frames", "150"], wheels="warp-lang", variants=POOLS),
    Program("OpenMM", "openmm", own("openmm_villin.py"), wheels="openmm[cuda13]"),
    Program("Dr.Jit", "drjit", own("drjit_integral.py"), wheels="drjit", variants=POOLS),
    Program("tinygrad", "tinygrad", own("tinygrad_train.py"), {"DEV": "CUDA"}, wheels="tinygrad"),
    Program("tinygrad, its cache off", "tinygrad", own("tinygrad_train.py"),
            {"DEV": "CUDA", "LRU": "0"}, variants=PAGE_LOCKED),
    Program("Taichi", "taichi", own("taichi_mpm.py"), {"TI_ARCH": "cuda", "TI_ENABLE_TORCH": "0"},
            wheels="taichi"),
    Program("MLX", "mlx", own("mlx_train.py"), wheels="mlx[cuda13]", variants=POOLS),
    Program("transformers, PyTorch's cache off", "transformers",
            ["python3", str(programs.HERE / "transformers_run.py")], UNCACHED,
            wheels="torch transformers"),
    Program("bitsandbytes", "bitsandbytes", own("bitsandbytes_adam.py"), wheels="bitsandbytes"),
]


def typed(program: Program) -> str:
    """The trial's command line, as a reader types it in the project's folder."""
    settings = [f"{name}={value}" for name, value in program.environment.items()]
    return as_typed(shlex.join([*settings, "cmp-preload", "trial", "--", *program.command]))


def as_typed(line: str) -> str:
    """Without the places of this machine."""
    for place in (f"{programs.BUILD}/", f"{programs.HERE.parents[1]}/"):
        line = line.replace(place, "")
    return line.replace(sys.executable, "python3")


def rounds_that_fit(left_s: float, run_s: float, variants: int) -> int:
    """Of a trial, whose first run is one to warm up, and last a check."""
    return max(1, min(MOST_ROUNDS, int((left_s / run_s - 2) / variants)))


def run(command: list[str], environment: dict[str, str], limit_s: float) -> tuple[int, str, str]:
    """Exit code, stdout and stderr. What takes longer is asked to end; what it says then counts."""
    try:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   errors="replace", start_new_session=True)
    except OSError as error:
        raise Failed(str(error)) from None
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            said, errors = process.communicate(timeout=limit_s)
            return process.returncode, said, errors
        except subprocess.TimeoutExpired:
            limit_s = 15  # cmp-preload first ends what it started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
    raise Failed("did not end when it was asked to")


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no word"])[-1][-200:]


class Gallery:
    def __init__(self, chosen: list[Program], limit_s: float, simulated: bool = False) -> None:
        self._chosen = chosen
        self._end = time.monotonic() + limit_s
        self._simulated = simulated
        self.rows: list[dict] = []

    def run(self, whenever) -> None:
        """All of them; `whenever` one is done it is called."""
        for i, program in enumerate(self._chosen):
            left_s = self._end - time.monotonic()
            say(f"{program.name} …")
            row = {"name": program.name, "command": typed(program)}
            try:
                row |= self._one(program, max(left_s / (len(self._chosen) - i), LEAST_S), left_s)
            except Failed as reason:
                row["missing"] = str(reason)
            self.rows.append(row)
            say(f"{program.name}: {row.get('missing') or row['verdict'][0]}")
            whenever()

    def _one(self, program: Program, part_s: float, left_s: float) -> dict:
        if not importlib.util.find_spec(program.package):
            raise Failed(f"there is no package {program.package}")
        part_s = min(part_s, left_s)
        if part_s <= 0:
            raise Failed("no time was left")
        environment = programs.environment(self._simulated) | program.environment
        python = [sys.executable] if program.command[0] == "python3" else program.command[:1]
        command = [*python, *program.command[1:]]
        for compiles in (True, False) if program.compiles else (False,):
            begin = time.monotonic()
            code, _, errors = run(command, environment, min(left_s, COMPILE_S) if compiles else part_s)
            run_s = time.monotonic() - begin
            if code != 0:
                raise Failed(f"without the pool: {ended(code)}: {last_line(errors)}")
        part_s -= run_s
        rounds = rounds_that_fit(part_s, run_s, program.variants)
        trial = [sys.executable, str(programs.BUILD / "cmp-preload"), "trial", "--json", "--modes",
                 "auto", "-n", str(rounds), "--", *command]
        code, said, errors = run(trial, environment, max(part_s, (program.variants + 4) * run_s))
        try:
            found = json.loads(said)
        except ValueError:
            raise Failed(f"the trial: {ended(code)}: {last_line(errors)}") from None
        found["verdict"] = [as_typed(line) for line in found["verdict"]]
        return {"rounds": rounds, "code": code, **found, "command": typed(program)}


def ended(code: int) -> str:
    return "took too long" if code == -signal.SIGTERM else f"exit code {code}"


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


# ---- What it says


def machine() -> dict:
    """The device and the driver, as nvidia-smi tells them."""
    try:
        said = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
                              capture_output=True, text=True, timeout=60, check=True).stdout
        name, driver = said.splitlines()[0].split(", ")
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return {}
    return {"device": name, "driver": driver}


def seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def mebibytes(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB"


COLUMNS = ["program", "without", "with", "gain", "allocations", "without a real call",
           "stream-ordered", "page-locked", "peak (the program's own)", "results"]


def cells(row: dict) -> list[str]:
    """Of one line of the table."""
    if "missing" in row:
        return [row["name"], f"not tried: {row['missing']}"]
    variants = {one["name"]: one for one in row["variants"]}
    process, totals = variants["auto"]["process"], variants["auto"]["totals"]
    line = [row["name"], seconds(variants["without"]["median_s"]), seconds(variants["auto"]["median_s"]),
            gain(row)]
    if process:
        held = f"{mebibytes(process['reserved_peak_bytes'])} ({mebibytes(process['live_peak_bytes'])})"
        line += [f"{totals['requests']:,}",
                 f"{100 * totals['hit_rate']:.1f}%" if totals["requests"] else "",
                 f"{process['async_allocations']:,}", f"{process['host_real_malloc_calls']:,}", held]
    else:
        line += [""] * 5
    return [*line, "the same" if row["same"] else "DIFFERENT"]


def gain(row: dict) -> str:
    if not row["same"]:
        return ""
    if not row["gain"]:
        return "none: not served"
    if any(line.startswith("Nothing to gain") for line in row["verdict"]):
        return "nothing to gain"
    words = {"alike": "none", "more": "too few runs", "noisy": "too noisy", "short": "runs too short"}
    outcome, ratio = row["gain"]["outcome"], row["gain"]["ratio"]
    return words.get(outcome) or f"{ratio:.2f}x"


def table(found: dict) -> list[str]:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in found["rows"]:
        line = cells(row)
        lines.append("| " + " | ".join(one.replace("|", "/") for one in
                                        line + [""] * (len(COLUMNS) - len(line))) + " |")
    return lines


def block(found: dict) -> list[str]:
    """What the document says of a run: where, when, the table, and each trial's verdict."""
    where = ", ".join([found["machine"].get("device", "no GPU"),
                       f"driver {found['machine'].get('driver', 'unknown')}", found["date"][:10],
                       f"commit {found['commit'] or 'unknown'}"])
    lines = [f"{where}; `tests/gpu/gallery.py`, {found['seconds']:.0f} s in all.", "", *table(found), ""]
    for row in found["rows"]:
        if "verdict" in row:
            lines += ["```text", f"$ {row['command']}  (-n {row['rounds']}, --modes auto)",
                      *row["verdict"], "```", ""]
    return lines


def together(runs: list[dict]) -> dict:
    """Several runs of one day as one; of a program that was run again the last counts."""
    rows = {row["name"]: row for found in runs for row in found["rows"]}
    return {**runs[0], "seconds": sum(found["seconds"] for found in runs), "rows": list(rows.values())}


def document(text: str, found: dict) -> str:
    """The page, with the block in its place."""
    if not re.search(f"{BEGIN}.*{END}", text, re.S):
        raise ValueError(f"no place for figures: {BEGIN} … {END}")
    made = "\n".join([BEGIN, "", *block(found), END])
    return re.sub(f"{BEGIN}.*{END}", lambda _: made, text, flags=re.S)


def main(everyone: list[Program]) -> int:
    parser = argparse.ArgumentParser(prog="gallery.py", usage=__doc__)
    parser.add_argument("--commit", default="")
    parser.add_argument("--only", default="")
    parser.add_argument("--limit", type=float, default=LIMIT_S)
    parser.add_argument("--output", type=pathlib.Path, default=programs.BUILD / "gallery.json")
    parser.add_argument("--document", type=pathlib.Path, nargs="+")
    parser.add_argument("--simulated", action="store_true")
    arguments = parser.parse_args()
    if arguments.document:
        found = together([json.loads(path.read_text(encoding="utf-8")) for path in arguments.document])
        DOCUMENT.write_text(document(DOCUMENT.read_text(encoding="utf-8"), found), encoding="utf-8")
        return 0
    if not arguments.simulated and programs.gpu_count() == 0:
        programs.skip_all("no GPU")
    names = [name.strip().lower() for name in arguments.only.split(",") if name.strip()]
    chosen = [one for one in everyone
              if not names or any(one.name.lower().startswith(name) for name in names)]
    begin = time.monotonic()
    gallery = Gallery(chosen, arguments.limit, arguments.simulated)

    def outcome() -> dict:
        return {"gallery": 1, "date": datetime.datetime.now(datetime.timezone.utc).isoformat(),
                "commit": arguments.commit, "machine": {} if arguments.simulated else machine(),
                "seconds": time.monotonic() - begin, "rows": gallery.rows}

    gallery.run(lambda: arguments.output.write_text(json.dumps(outcome(), indent=1), encoding="utf-8"))
    print("\n".join(block(outcome())))
    return 0


if __name__ == "__main__":
    sys.exit(main(PROGRAMS))
